"""Preference learning by TRL's DPOTrainer: an agent's right trace is preferred to its earlier wrong trace.

D&R (arXiv 2506.03541) ranks the turns of a debate by their place in a tree of turns. The debates here have no tree,
since every agent writes one trace per round, so a pair is a right last trace and an earlier wrong one of one agent.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import Field

from agentark import StudyError
from agentark.distill.settings import Settings
from agentark.models.chat import prompt_builder
from agentark.schemas import CheckedTrace, Question
from agentark.traces.reading import SUMMARISER


class DPO(Settings):
    """Direct preference optimisation (arXiv 2305.18290). batch_size counts pairs."""

    section: ClassVar[str] = "dpo"

    steps: int = Field(gt=0)
    beta: float = Field(gt=0)  # scale of the implicit reward; higher values keep the student closer to its base
    sft_weight: float = Field(0.0, ge=0)  # weight of the preferred trace's likelihood in the loss

    @property
    def optimiser_steps(self) -> int:
        return self.steps


class Pair(NamedTuple):
    """A preference between two answers to a question."""

    question: str
    chosen: str
    rejected: str


def pairs(checked: Iterable[CheckedTrace], questions: Mapping[str, Question]) -> list[Pair]:
    """The distinct pairs, one for each agent of a debate whose last trace is right and an earlier one wrong: the last
    trace is preferred to the last wrong one. Raises StudyError if no agent corrects itself."""
    found: dict[Pair, None] = {}
    by_agent = sorted(checked, key=lambda t: (t.question_id, t.agent, t.round))
    for (key, agent), group in itertools.groupby(by_agent, key=lambda t: (t.question_id, t.agent)):
        own = list(group)
        wrong = [t.text for t in own if not t.correct]
        if agent != SUMMARISER and own[-1].correct and wrong:
            found[Pair(questions[key].text, own[-1].text, wrong[-1])] = None
    if not found:
        raise StudyError("no agent of the debates corrects itself, so there are no pairs; debate harder questions")
    return list(found)


def train(base: Path, preferred: Sequence[Pair], out: Path, seed: int, settings: DPO) -> list[dict]:
    """Train a student from `base` to prefer the chosen traces, with `base` as the reference, and save it to `out`.

    The loss is -log sigmoid(beta (r(chosen) - r(rejected))), where r is the log ratio to the reference, plus sft_weight
    times the loss of supervised training on the chosen trace.

    Returns the learning curve: step, loss, accuracy (share of pairs in the right order), tokens (trained so far).
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from agentark.distill.own_outputs import curve
    from agentark.distill.students import Origin, save
    from agentark.distill.training import arguments, checkpoints_of, run, trainable
    from agentark.models import loading

    origin = Origin("dpo", seed, {"base": base}, preferred, settings.recorded())
    checkpoints = checkpoints_of(origin, settings)
    model, tokenizer = trainable(base, seed, settings)
    weighted = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.sft_weight]}
    config = DPOConfig(
        **arguments(settings, seed, settings.batch_size, f"dpo {base.name} seed {seed}", checkpoints),
        **(weighted if settings.sft_weight else {}),
        max_steps=settings.steps,
        warmup_steps=settings.steps // 20,
        max_length=None,
        beta=settings.beta,
        logging_steps=max(1, settings.steps // 40),
    )
    ask = prompt_builder(tokenizer, settings.system)
    chats = [
        {
            "prompt": ask(pair.question),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in preferred
    ]
    reference = None if settings.lora_rank else loading.load(base)[0]
    training = DPOTrainer(model, reference, config, train_dataset=Dataset.from_list(chats), processing_class=tokenizer)
    run(training, checkpoints)
    save(training.model, tokenizer, out, origin)
    return curve(training.state.log_history, loss="loss", accuracy="rewards/accuracies", tokens="num_tokens")
