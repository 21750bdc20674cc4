"""Settings of the trainings: one class per method, read from the method's section of params.yaml.

Names follow TRL where it has the setting. The source of each value is noted in params.yaml.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentark import StudyError

Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], values: Mapping[str, Any], section: str) -> Model:
    """Validate a section of params.yaml. Raises StudyError for an unknown or missing name and for an invalid value."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, given = ".".join(map(str, first["loc"])), repr(first["input"])[:80]
        if first["type"] == "extra_forbidden":
            raise StudyError(f"{section}: {name} is unknown; choose from {', '.join(kind.model_fields)}") from None
        if first["type"] == "missing":
            raise StudyError(f"{section}: {name} is missing; add it to params.yaml") from None
        raise StudyError(f"{section}.{name}={given}: {first['msg']}; correct it in params.yaml") from None


class Settings(BaseModel):
    """Settings common to all trainings. `section` is the name of the section in params.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    section: ClassVar[str]
    unrecorded: ClassVar[set[str]] = {
        "trainer",
        "per_device_batch_size",
        "report_to",
        "save_steps",
    }  # no effect on the student

    batch_size: int = Field(gt=0)  # examples per step over all processes
    learning_rate: float = Field(gt=0)  # at the end of warm-up; decays linearly to 0
    lora_rank: int = Field(0, ge=0)  # 0 trains all weights
    per_device_batch_size: int = Field(0, ge=0)  # examples at a time on a device; 0: all of a process's share
    trainer: Literal["auto", "unsloth", "peft"] = "auto"  # see launch.route
    four_bit: bool = False  # 4-bit base weights (QLoRA)
    bf16: bool = False  # mixed precision on a CPU, faster if the CPU has matrix units for it; a GPU always uses it
    save_steps: int = Field(0, ge=0)  # steps between checkpoints, from which a killed training continues; 0: none
    system: str = ""  # the system prompt with which the student will answer
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = "none"  # tracker that TRL logs to

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """The settings in `values`. Raises StudyError for an unknown or missing name and for an invalid value."""
        return validated(cls, values, cls.section)

    @property
    def optimiser_steps(self) -> int:
        """Optimiser steps of the whole training."""
        raise NotImplementedError

    def but(self, **changes: Any) -> Self:
        """A copy with some values replaced, validated again."""
        return type(self).read(self.model_dump() | changes)

    def recorded(self) -> dict[str, Any]:
        """The values for a student's provenance: everything that its weights depend on."""
        values = self.model_dump(exclude=self.unrecorded)
        later = {"system": "", "bf16": False}  # left out at these values, so that older students stay valid
        return {name: value for name, value in values.items() if (name, value) not in later.items()}


class SFT(Settings):
    """Answer-only SFT, R-SFT and DA (method, section 3)."""

    section: ClassVar[str] = "sft"

    unrecorded = Settings.unrecorded | {"accelerate"}

    steps: int = Field(gt=0)  # optimiser steps, so that methods are compared at equal training
    accelerate: str = ""  # configuration of `accelerate launch` that divides the weights among GPUs and machines

    @property
    def optimiser_steps(self) -> int:
        return self.steps


class RewardModel(Settings):
    """The process reward model of PAD (method, section 3). batch_size counts debates.

    Trained by PEFT, since Unsloth has no scalar head.
    """

    section: ClassVar[str] = "reward_model"
    unrecorded: ClassVar[set[str]] = Settings.unrecorded | {"four_bit", "stage_1_steps", "stage_2_steps"}

    score: Literal["head", "likelihood"] = "head"  # how a step is scored, see scorer.step_rewards; paper: head
    loss: Literal["paper", "code", "cross-entropy"]  # see reward_model.step_loss
    nll_weight: float = Field(0.0, ge=0)  # weight of the agreeing traces' likelihood; only for score "likelihood"
    own_samples: int = Field(0, ge=0)  # student's samples per question, see step_labels; 0: only the debates' traces
    stage_1_steps: int = Field(ge=0)  # last layer and head
    stage_2_steps: int = Field(ge=0)  # all weights

    @property
    def optimiser_steps(self) -> int:
        return self.stage_1_steps + self.stage_2_steps

    trainer: Literal["peft"] = "peft"
    four_bit: Literal[False] = False
    system: Literal[""] = ""  # the input is only the question and the steps


class Policy(Settings):
    """The policy of PAD (method, section 3), by GRPO, RLOO or PPO. batch_size counts questions."""

    section: ClassVar[str] = "policy"

    steps: int = Field(gt=0)
    num_generations: int = Field(gt=1)  # outputs per question
    max_tokens: int = Field(gt=0)  # per output
    temperature: float = Field(gt=0)
    beta: float = Field(ge=0)  # weight of the KL divergence to the base
    aggregate: Literal["mean", "min", "step"]  # step scores to reward; step: advantages per step, see step_credit
    outcome_weight: float = Field(ge=0)  # weight of a correct answer relative to step scores; 0: uses no gold answers
    # paged: transformers with continuous batching, see engines.paged
    generator: Literal["transformers", "paged", "vllm"] = "transformers"
    algorithm: Literal["grpo", "rloo", "ppo"] = "grpo"
    epochs: int = Field(1, gt=0)  # updates on a step's outputs; PPO only
    held_out: int = Field(0, ge=0)  # questions set aside for the early stop, see policy.train; 0: none
    eval_steps: int = Field(10, gt=0)  # steps between two evaluations on them

    @property
    def optimiser_steps(self) -> int:
        return self.steps


class Recipe(BaseModel):
    """The settings of all methods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sft: SFT
    reward_model: RewardModel
    policy: Policy

    def optimiser_steps(self, method: str) -> int:
        """Optimiser steps of a training by `method`, for PAD including those of its reward model."""
        if method == "pad":
            return self.reward_model.optimiser_steps + self.policy.optimiser_steps
        return self.sft.optimiser_steps

    @classmethod
    def read(cls, sft: dict[str, Any], reward_model: dict[str, Any], policy: dict[str, Any]) -> Self:
        """The settings in three sections. Raises StudyError like `Settings.read`."""
        return cls(sft=SFT.read(sft), reward_model=RewardModel.read(reward_model), policy=Policy.read(policy))

    @classmethod
    def of(cls, params: dict[str, Any]) -> Self:
        """The settings in `params`, the content of params.yaml."""
        system = {"system": params["system"]}
        policy = params["policy"] | system | {"max_tokens": params["max_tokens"]}
        return cls.read(params["sft"] | system, params["reward_model"], policy)
