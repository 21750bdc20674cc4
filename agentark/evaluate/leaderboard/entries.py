"""The leaderboard's methods: one function each, which trains a student from the same inputs (`Material`).

A method is any function of this form, in any module; its section in params.yaml names it (docs/leaderboard.md). The
annotation of `settings` is the class for its settings (`sections.method_of`). Every method trains on about
`training_tokens` tokens in total over its stages, prompts included.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from agentark.debate.prompts import wording
from agentark.distill import imad, on_policy, outcome, preference, sdpo, sft
from agentark.distill.on_policy import OnPolicy
from agentark.distill.outcome import Outcome
from agentark.distill.settings import SFT, Settings, validated
from agentark.distill.step_labels import agreed_answers
from agentark.evaluate.leaderboard import contexts
from agentark.evaluate.leaderboard.material import Material
from agentark.evaluate.leaderboard.sections import Stage, method_of
from agentark.models import loading
from agentark.parallel import tick
from agentark.schemas import Trace
from agentark.traces.selection import select

GUESS = 48  # assumed tokens of an example, for the total of a progress bar


class Supervised(Settings):
    """Supervised training on traces of one source, for about `training_tokens` tokens."""

    section: ClassVar[str] = "supervised"

    training_tokens: int = Field(gt=0)
    source: str = "debate"

    @property
    def optimiser_steps(self) -> int:
        return self.steps(GUESS)

    def steps(self, tokens: float) -> int:
        """The number of steps with about `training_tokens` tokens, for examples of `tokens` tokens."""
        return max(1, round(self.training_tokens / self.batch_size / tokens))


def fit(
    pairs: Sequence[tuple[str, str]], method: str, base: Path, out: Path, seed: int, settings: Supervised
) -> list[dict]:
    """Supervised training on (question, target) pairs. Returns the learning curve with `tokens`."""
    each = sft.example_tokens(pairs, loading.load_tokenizer(base), settings.system)
    chosen = SFT.read(common(settings) | {"steps": settings.steps(each)})
    tick(settings.optimiser_steps - chosen.steps)  # the progress bar's total is a guess
    curve = sft.train(base, pairs, out, seed, chosen, method)
    return [row | {"tokens": row["step"] * each * chosen.batch_size} for row in curve]


def common(settings: Settings) -> dict[str, Any]:
    """The values of the settings that all trainings share."""
    return {name: getattr(settings, name) for name in Settings.model_fields}


def rsft(material: Material, out: Path, seed: int, settings: Supervised) -> list[dict]:
    """R-SFT on the verified traces of a source (method, section 3)."""
    kept, _ = select(material.source(settings.source), material.questions, 1)
    return fit(sft.examples(kept, "rsft"), "rsft", material.student, out, seed, settings)


def da(material: Material, out: Path, seed: int, settings: Supervised) -> list[dict]:
    """DA on up to three diverse traces per question (method, section 3)."""
    kept, _ = select(material.source(settings.source), material.questions, 3)
    return fit(sft.examples(kept, "da"), "da", material.student, out, seed, settings)


class Distillation(OnPolicy):
    """On-policy distillation by teachers that read a debate, or only the question."""

    source: str = ""  # the traces that the teachers read; "": only the question; "other": the next question's debate
    by_confidence: bool = False  # MAD-OPD's weights of the teachers; False: equal weights


def lessons(material: Material, settings: Distillation, teachers: int) -> list[on_policy.Lesson]:
    """What the first `teachers` agents read before they score a student's output."""
    if not settings.source:
        return contexts.question_only(material.questions, teachers, settings.system)
    agents = range(1, teachers + 1)
    off = replace(material.debate, communication="off")
    debate = off if settings.source == "debate_off" else material.debate
    traces: Sequence[Trace] = material.source("debate" if settings.source == "other" else settings.source)
    if settings.source == "other":
        traces = contexts.shifted_traces(traces, material.questions)
    found = contexts.next_round(debate, traces, material.questions, agents, settings.system)
    if not settings.by_confidence:
        return found
    last = contexts.last_traces(traces)
    replies = [last[q.question_id][:teachers] for q in material.questions]
    return on_policy.by_confidence(found, models_of(material, teachers), replies, settings.bf16)


def models_of(material: Material, teachers: int) -> list[Path]:
    """The models of the first `teachers` agents."""
    return list(itertools.islice(itertools.cycle(material.teachers), teachers))


def opd(material: Material, out: Path, seed: int, settings: Distillation) -> list[dict]:
    """On-policy distillation by the last teacher, the debate's summariser; MAD-OPD's baseline OPD."""
    teacher = material.teachers[-1:]
    read = contexts.question_only(material.questions, system=settings.system)
    return on_policy.train(material.student, teacher, read, out, seed, settings)


def mad_opd(material: Material, out: Path, seed: int, settings: Distillation) -> list[dict]:
    """MAD-OPD: two teachers, or all models of the debate if there are more, read the debate. With `source` "" they read
    only the question; this is the baseline MT-OPD."""
    teachers = max(2, len(material.teachers))
    read = lessons(material, settings, teachers)
    return on_policy.train(material.student, models_of(material, teachers), read, out, seed, settings)


def sdft(material: Material, out: Path, seed: int, settings: Distillation) -> list[dict]:
    """SDFT: the student is its own teacher. It reads the debate as the agent that its model plays, or as the first."""
    own = material.teachers.index(material.student) if material.student in material.teachers else 0
    read = [replace(x, contexts=x.contexts[own:], weights=[1.0]) for x in lessons(material, settings, own + 1)]
    return on_policy.train(material.student, [material.student], read, out, seed, settings)


def sdpo_own(material: Material, out: Path, seed: int, settings: sdpo.SDPO) -> list[dict]:
    """SDPO: the student's own right outputs replace a debate."""
    words = wording(material.questions[0])
    forms = (
        words.revise.format(question="{prompt}", traces="{solution}", i=1),
        words.agent.format(i=1, trace="{successful_previous_attempt}"),
    )
    return sdpo.train(material.student, material.questions, forms, out, seed, settings)


class Preferences(Supervised):
    """DPO for about `training_tokens` tokens, which include both traces of a pair."""

    section: ClassVar[str] = "preferences"

    beta: float = Field(gt=0)  # see preference.DPO
    sft_weight: float = Field(0.0, ge=0)


def dpo(material: Material, out: Path, seed: int, settings: Preferences) -> list[dict]:
    """DPO that prefers an agent's corrected trace to its wrong one (D&R without the tree)."""
    pairs = preference.pairs(material.source(settings.source), material.asked)
    tokenizer = loading.load_tokenizer(material.student)
    sides = [(pair.question, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    steps = settings.steps(2 * sft.example_tokens(sides, tokenizer, settings.system))
    tick(settings.optimiser_steps - steps)
    chosen = preference.DPO.read(
        common(settings) | {"steps": steps, "beta": settings.beta, "sft_weight": settings.sft_weight}
    )
    return preference.train(material.student, pairs, out, seed, chosen)


def consensus_rl(material: Material, out: Path, seed: int, settings: Outcome) -> list[dict]:
    """GRPO with a reward for agreement with the debate's majority; no gold answer is used."""
    agreed = agreed_answers(material.source("debate"), material.asked)
    return outcome.consensus(material.student, material.questions, agreed, out, seed, settings)


def gold_rl(material: Material, out: Path, seed: int, settings: Outcome) -> list[dict]:
    """GRPO with a reward for right answers, without a debate: the control of consensus_rl."""
    return outcome.gold(material.student, material.questions, out, seed, settings)


class Two(BaseModel):
    """The settings of a method in two stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Stage
    second: Stage
    source: str = ""  # of the traces, for both stages

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """The settings in `values`. Raises StudyError like `Settings.read`."""
        return validated(cls, values, "two stages")

    @property
    def stages(self) -> list[Settings]:
        """The settings of both stages."""
        return [method_of(stage, self.source)[1] for stage in (self.first, self.second)]

    @property
    def optimiser_steps(self) -> int:
        return sum(settings.optimiser_steps for settings in self.stages)

    @property
    def trainer(self) -> str:
        """The first stage's `trainer`, `lora_rank` and `four_bit` set the route of both stages (see launch.route)."""
        return self.stages[0].trainer

    @property
    def lora_rank(self) -> int:
        return self.stages[0].lora_rank

    @property
    def four_bit(self) -> bool:
        return self.stages[0].four_bit


def two_stages(material: Material, out: Path, seed: int, settings: Two) -> list[dict]:
    """Train by one method, then train its student by another. Each stage has its own `function` and `settings`."""
    (first, its), (second, others) = (method_of(stage, settings.source) for stage in (settings.first, settings.second))
    before = first(material, out / "first", seed, its)
    curve = second(replace(material, student=out / "first"), out, seed, others)
    used = before[-1]["tokens"]
    return [row | {"tokens": row["tokens"] + used} for row in curve]


class Internalised(imad.Internalise):
    """Both stages of IMAD, with half of the tokens each."""

    agents: int = Field(gt=1)  # number of agents whose traces a transcript contains
    supervised: dict[str, Any]  # stage 1: see Supervised

    @property
    def optimiser_steps(self) -> int:
        return self.steps + Supervised.read(self.supervised).optimiser_steps


def imad_rl(material: Material, out: Path, seed: int, settings: Internalised) -> list[dict]:
    """IMAD: SFT on transcripts, then GRPO with a fading reward for the debate's form and a shrinking token limit."""
    pairs = contexts.transcripts(material.source("debate"), material.asked, settings.agents)
    first = Supervised.read(settings.supervised)
    before = fit(pairs, "imad", material.student, out / "stage-1", seed, first)
    header = wording(material.questions[0]).agent.partition("{i}")[0]
    curve = imad.train(out / "stage-1", material.questions, header, out, seed, settings)
    return [row | {"tokens": row["tokens"] + before[-1]["tokens"]} for row in curve]
