"""Step-level credit for TRL's GRPO trainer."""

from collections.abc import Sequence

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase
from trl import GRPOTrainer

from agentark.distill.rewards import complete_scores
from agentark.distill.scorer import StepScorer, pad
from agentark.schemas import Question


def steps_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The step number, from 0, of each token of an output.

    A step includes the newline after it, where it is scored. The last step includes all tokens after it.
    """
    step, written = 0, False
    numbers: list[int] = []
    for piece in tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=True):
        numbers.append(step)
        written = written or bool(piece.strip())
        if written and "\n" in piece:
            step, written = step + 1, False
    last = step if written else max(0, step - 1)
    return [min(number, last) for number in numbers]


def step_advantages(scores: Sequence[Sequence[float]], generations: int) -> list[list[float]]:
    """Each step's score minus the mean over all steps of its group, divided by their standard deviation.

    This is the process supervision of DeepSeekMath (arXiv 2402.03300, section 4.1.3). scores: for each output
    the scores of its steps, at least one; outputs are in consecutive groups of `generations`.
    """
    advantages: list[list[float]] = []
    for start in range(0, len(scores), generations):
        group = scores[start : start + generations]
        steps = torch.tensor([s for output in group for s in output])
        mean, std = steps.mean(), steps.std() + 1e-4  # TRL's epsilon, so that outputs of one step match GRPO
        advantages += [((torch.tensor(output) - mean) / std).tolist() for output in group]
    return advantages


class StepCredit(GRPOTrainer):
    """GRPO in which each token has the advantage of its own step instead of the whole output's.

    DeepSeekMath adds the advantages of all later steps, which rewards length if steps score above their group's mean.
    Here each step has its own advantage only. An output without steps counts as one step with score 0.
    """

    def __init__(self, *arguments, scorer: StepScorer, questions: Sequence[Question], **named):
        super().__init__(*arguments, **named)
        self.scorer, self.asked = scorer, {q.question_id: q for q in questions}

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        output = super()._generate_and_score_completions(inputs)
        rows = zip(output["completion_ids"], output["completion_mask"].bool(), strict=True)
        outputs = [ids[written].tolist() for ids, written in rows]
        generations = self.num_generations if self.model.training else self.num_generations_eval
        tokenizer = self.processing_class
        assert isinstance(tokenizer, PreTrainedTokenizerBase) and generations is not None
        texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        batch_questions = [self.asked[row["question_id"]] for row in inputs]
        scores = [s or [0.0] for s in complete_scores(self.scorer, batch_questions, texts)]
        all_advantages = step_advantages(gather_object(scores), generations)  # a group may span processes
        own = all_advantages[self.accelerator.process_index * len(outputs) :][: len(outputs)]
        steps = [steps_of(ids, tokenizer) for ids in outputs]
        credited = pad([[a[n] for n in numbers] for a, numbers in zip(own, steps, strict=True)], 0.0)
        output["advantages"] = credited.to(output["completion_ids"].device)
        return output
