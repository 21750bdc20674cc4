"""TRL's trainers where the study needs more of them: batches that are whole over all processes, credit step by step."""

from collections.abc import Sequence

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerFast
from trl import GRPOTrainer

from agentark.distill.scorer import StepScorer, pad


def steps_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """For each token of an output the number, from 0, of the step it belongs to. The newline after a step, at which it is
    scored, is part of it; so is all that follows the last one."""
    numbers, step, written = [], 0, False
    for piece in tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=True):
        numbers.append(step)
        written = written or bool(piece.strip())
        if written and "\n" in piece:
            step, written = step + 1, False
    last = step if written else max(0, step - 1)
    return [min(number, last) for number in numbers]


def step_advantages(scores: Sequence[Sequence[float]], generations: int) -> list[list[float]]:
    """Each step's score less the mean over all steps of its group, by their standard deviation (the process supervision
    of DeepSeekMath, arXiv 2402.03300, section 4.1.3). `scores`: outputs in groups of `generations`, each with a step."""
    advantages = []
    for start in range(0, len(scores), generations):
        group = scores[start : start + generations]
        steps = torch.tensor([s for output in group for s in output])
        mean, std = steps.mean(), steps.std() + 1e-4  # TRL's, by which an output of one step counts as in GRPO
        advantages += [((torch.tensor(output) - mean) / std).tolist() for output in group]
    return advantages


class StepCredit(GRPOTrainer):
    """GRPO in which each token has the advantage of its own step, not one of its whole output.

    DeepSeekMath then sums the advantages of a token's step and of all later ones, which rewards length wherever steps
    score above their group's mean; here a step answers for itself. An output without steps counts as one that scores 0.
    """

    def __init__(self, *arguments, scorer: StepScorer, **named):
        super().__init__(*arguments, **named)
        self.scorer = scorer

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        output = super()._generate_and_score_completions(inputs)
        rows = zip(output["completion_ids"], output["completion_mask"].bool(), strict=True)
        outputs = [ids[written].tolist() for ids, written in rows]
        texts = self.processing_class.batch_decode(outputs, skip_special_tokens=True)
        scores = [s or [0.0] for s in self.scorer([i["prompt"][0]["content"] for i in inputs], texts)]
        everyone = step_advantages(gather_object(scores), self.num_generations)  # a group may span processes
        own = everyone[self.accelerator.process_index * len(outputs) :][: len(outputs)]
        steps = [steps_of(ids, self.processing_class) for ids in outputs]
        credited = pad([[a[n] for n in numbers] for a, numbers in zip(own, steps, strict=True)], 0.0)
        output["advantages"] = credited.to(output["completion_ids"].device)
        return output
