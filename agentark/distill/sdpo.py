"""SDPO (arXiv 2601.20802) by TRL: the student's own right outputs replace the debate.

The teacher is the student itself. It reads a right output of the same group before it scores the others. SDPO is the
control of SDFT with debates: if any right solution works as well, the debate is not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from agentark import StudyError
from agentark.distill.outcome import Outcome
from agentark.distill.own_outputs import TokenBudget, curve, prepared
from agentark.distill.policy import prompts
from agentark.distill.rewards import outcome_reward
from agentark.distill.students import Origin, save
from agentark.distill.training import run
from agentark.models import loading
from agentark.schemas import Question


class SDPO(Outcome):
    """Self-distillation from the student's own right outputs."""

    section: ClassVar[str] = "sdpo"

    divergence: float = Field(ge=0, le=1)  # 0: KL to the teacher, 1: reverse KL, between: generalised Jensen-Shannon
    update_rate: float = Field(0.0, ge=0, le=1)  # of the teacher towards the student ("ema"); 0: the base


class CountsTokens(SDPOTrainer):
    """SDPOTrainer that counts the tokens of prompts and outputs, as TRL's other trainers on own outputs do."""

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        inputs, outputs = super()._generate(prompt_ids)
        counted = torch.tensor(sum(map(len, inputs)) + sum(map(len, outputs)), device=self.accelerator.device)
        self.state.num_input_tokens_seen += int(self.accelerator.gather(counted).sum())
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
        return inputs, outputs


def train(
    base: Path, questions: Sequence[Question], forms: tuple[str, str], out: Path, seed: int, settings: SDPO
) -> list[dict]:
    """Train a student from `base` on its own outputs, with itself as teacher, and save it to `out`.

    forms: templates of the teacher's prompt, with the fields {prompt} and {solution}, and of the solution in it, with
    the field {successful_previous_attempt}.

    Outputs to a question without another right output are not trained on. Outputs are checked against gold answers.

    Returns the learning curve: step, loss, tokens (trained so far). Raises StudyError for LoRA with update_rate
    above 0, because TRL then cannot keep the base as a separate teacher.
    """
    if settings.lora_rank and settings.update_rate:
        raise StudyError("sdpo.update_rate: a teacher that follows the student needs lora_rank 0; set one of them to 0")
    pairs = [(q.text, q.answer) for q in questions]
    origin = Origin("sdpo", seed, {"base": base}, pairs, settings.recorded())
    model, tokenizer, shared, checkpoints = prepared(origin, settings, settings.outputs)
    config = SDPOConfig(
        **shared,
        num_generations=settings.num_generations,
        max_prompt_length=None,
        max_reprompt_len=loading.window(base) - settings.max_tokens,
        beta=settings.beta,
        distillation_mode="full_logits",  # as in the other methods on own outputs; TRL's default: the sampled token
        distillation_alpha=settings.divergence,
        teacher_model_kind="ema" if settings.update_rate else "base",
        teacher_update_rate=settings.update_rate,
        reprompt_template=forms[0],
        solution_template=forms[1],
    )
    training = CountsTokens(
        model,
        outcome_reward(questions),
        config,
        train_dataset=prompts(questions, tokenizer, settings.system),
        processing_class=tokenizer,
    )
    TokenBudget(training, settings.training_tokens)
    run(training, checkpoints)
    save(training.model, tokenizer, out, origin)
    return curve(training.state.log_history, loss="loss", tokens="num_tokens")
