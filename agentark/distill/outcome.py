"""Reinforcement learning from outcomes by TRL's GRPOTrainer, without a reward model.

The reward is 1 for a right answer or, without gold answers, for the answer of the debate's majority (self-consistency
as a reward, arXiv 2509.15172). `imad` adds rewards that change during the training.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from trl import GRPOConfig, GRPOTrainer

from agentark import StudyError
from agentark.answers import same
from agentark.distill.own_outputs import OwnOutputs, TokenBudget, curve, prepared
from agentark.distill.policy import prompts
from agentark.distill.rewards import outcome_reward
from agentark.distill.students import Origin, save
from agentark.distill.training import run
from agentark.schemas import Question
from agentark.traces.reading import answer_of


class Outcome(OwnOutputs):
    """Reinforcement learning from outcomes."""

    section: ClassVar[str] = "outcome"

    num_generations: int = Field(gt=1)  # outputs per question
    beta: float = Field(ge=0)  # weight of the KL divergence to the base

    @property
    def outputs(self) -> int:
        """Outputs per step."""
        return self.batch_size * self.num_generations


def train(
    base: Path,
    questions: Sequence[Question],
    rewards: Callable[[Callable[[], float]], Sequence[Callable]],
    out: Path,
    seed: int,
    settings: Outcome,
    method: str = "outcome",
) -> list[dict]:
    """Train a student from `base` by GRPO on the sum of reward functions, and save it to `out`.

    rewards: a function that returns TRL's reward functions. Its argument is a function that returns the completed share
    of the training, from 0 to 1.

    Returns the learning curve: step, reward, length (tokens per output), tokens (trained so far).
    """
    answered = [(q.text, q.answer) for q in questions]
    origin = Origin(method, seed, {"base": base}, answered, settings.recorded())
    model, tokenizer, shared, checkpoints = prepared(origin, settings, settings.outputs)
    config = GRPOConfig(
        **shared,
        num_generations=settings.num_generations,
        beta=settings.beta,
        loss_type="grpo",  # as in PAD: mean over each output's tokens, then over outputs
    )
    functions = rewards(lambda: budget.share)
    dataset = prompts(questions, tokenizer, settings.system)
    training = GRPOTrainer(model, list(functions), config, train_dataset=dataset, processing_class=tokenizer)
    budget = TokenBudget(training, settings.training_tokens)
    run(training, checkpoints)
    save(training.model, tokenizer, out, origin)
    return curve(training.state.log_history, reward="reward", length="completions/mean_length", tokens="num_tokens")


def agreement_reward(questions: Sequence[Question], agreed: Mapping[str, str]) -> Callable:
    """A reward of 1 for the debate's answer in `agreed` (question_id -> answer), else 0. Uses no gold answer."""
    by_id = {q.question_id: q for q in questions}

    def agreement(prompts, completions, question_id, **_) -> list[float]:
        stated = [answer_of(c[0]["content"], by_id[key]) for c, key in zip(completions, question_id, strict=True)]
        return [
            float(a is not None and same(a, agreed[key], by_id[key].kind))
            for a, key in zip(stated, question_id, strict=True)
        ]

    return agreement


def consensus(
    base: Path, questions: Sequence[Question], agreed: Mapping[str, str], out: Path, seed: int, settings: Outcome
) -> list[dict]:
    """Train a student by `train` with `agreement_reward`. Questions without an answer in `agreed` are left out.
    Raises StudyError if no question is left."""
    debated = [q for q in questions if q.question_id in agreed]
    if not debated:
        raise StudyError("no debate agrees on an answer, so there is nothing to reward; debate the training questions")
    return train(base, debated, lambda _over: [agreement_reward(debated, agreed)], out, seed, settings, "consensus")


def gold(base: Path, questions: Sequence[Question], out: Path, seed: int, settings: Outcome) -> list[dict]:
    """Train a student by `train` with a reward for right answers."""
    return train(base, questions, lambda _over: [outcome_reward(questions)], out, seed, settings, "outcome")
