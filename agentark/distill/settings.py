"""Settings of the trainings: one class a method, read from the method's section of params.yaml.

Names are those of TRL where it has one. Where each value comes from is noted beside it in params.yaml.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentark import StudyError


class Settings(BaseModel):
    """What every training has. `section`: its section of params.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    section: ClassVar[str]
    unrecorded: ClassVar[set[str]] = {"trainer", "per_device_batch_size", "report_to"}  # which route, not which student

    batch_size: int = Field(gt=0)  # examples a step, whatever the number of processes
    learning_rate: float = Field(gt=0)  # at the end of warm-up; falls linearly to 0
    lora_rank: int = Field(0, ge=0)  # 0 trains all weights
    per_device_batch_size: int = Field(0, ge=0)  # examples at a time on a device; 0: a process's whole share
    trainer: Literal["auto", "unsloth", "peft"] = "auto"  # see launch.route
    four_bit: bool = False  # base weights of 4 bits (QLoRA)
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = "none"  # tracker that TRL logs to

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """The settings in `values`. Raises StudyError, in one line, for an unknown name or a value that does not fit."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name, given = ".".join(map(str, first["loc"])), repr(first["input"])[:80]
            if first["type"] == "extra_forbidden":
                raise StudyError(
                    f"{cls.section}: {name} is unknown; it has only {', '.join(cls.model_fields)}"
                ) from None
            if first["type"] == "missing":
                raise StudyError(f"{cls.section}: {name} is missing; add it to params.yaml") from None
            raise StudyError(f"{cls.section}.{name}={given}: {first['msg']}; correct it in params.yaml") from None

    @property
    def optimiser_steps(self) -> int:
        """Optimiser steps of the whole training."""
        raise NotImplementedError

    def but(self, **changes: Any) -> Self:
        """The same settings with some values replaced, checked again."""
        return type(self).read(self.model_dump() | changes)

    def recorded(self) -> dict[str, Any]:
        """What a student's provenance states: everything on which its weights depend."""
        return self.model_dump(exclude=self.unrecorded)


class SFT(Settings):
    """Answer-only SFT, R-SFT and DA (method, section 3)."""

    section: ClassVar[str] = "sft"

    steps: int = Field(gt=0)  # optimiser steps, so that methods compare at equal training

    @property
    def optimiser_steps(self) -> int:
        return self.steps


class RewardModel(Settings):
    """The process reward model of PAD (method, section 3). batch_size counts debates. PEFT trains it: Unsloth has no
    scalar head."""

    section: ClassVar[str] = "reward_model"
    unrecorded: ClassVar[set[str]] = Settings.unrecorded | {"four_bit", "stage_1_steps", "stage_2_steps"}

    loss: Literal["paper", "code", "cross-entropy"]  # see reward_model.step_loss
    stage_1_steps: int = Field(ge=0)  # last layer and head
    stage_2_steps: int = Field(ge=0)  # all weights

    @property
    def optimiser_steps(self) -> int:
        return self.stage_1_steps + self.stage_2_steps

    trainer: Literal["peft"] = "peft"
    four_bit: Literal[False] = False


class Policy(Settings):
    """The policy of PAD (method, section 3), by GRPO, RLOO or PPO. batch_size counts questions."""

    section: ClassVar[str] = "policy"

    steps: int = Field(gt=0)
    num_generations: int = Field(gt=1)  # outputs a question
    max_tokens: int = Field(gt=0)  # of an output
    temperature: float = Field(gt=0)
    beta: float = Field(ge=0)  # weight of the KL divergence to the base
    aggregate: Literal["mean", "min", "step"]  # of step scores to a reward; step: credit by step, see step_credit
    outcome_weight: float = Field(ge=0)  # of a right final answer beside the step scores; 0: no gold answer is used
    generator: Literal["transformers", "vllm"] = "transformers"
    algorithm: Literal["grpo", "rloo", "ppo"] = "grpo"
    epochs: int = Field(1, gt=0)  # updates on a step's outputs, of PPO alone

    @property
    def optimiser_steps(self) -> int:
        return self.steps


class Recipe(BaseModel):
    """The settings of all methods, for notebooks that train several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sft: SFT
    reward_model: RewardModel
    policy: Policy

    def optimiser_steps(self, method: str) -> int:
        """Optimiser steps of a training by `method`; of PAD its reward model's too."""
        if method == "pad":
            return self.reward_model.optimiser_steps + self.policy.optimiser_steps
        return self.sft.optimiser_steps

    @classmethod
    def read(cls, sft: dict[str, Any], reward_model: dict[str, Any], policy: dict[str, Any]) -> Self:
        return cls(sft=SFT.read(sft), reward_model=RewardModel.read(reward_model), policy=Policy.read(policy))

    @classmethod
    def of(cls, params: dict[str, Any]) -> Self:
        """The settings in params.yaml."""
        policy = params["policy"] | {"max_tokens": params["max_tokens"]}
        return cls.read(params["sft"], params["reward_model"], policy)
