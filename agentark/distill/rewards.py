"""Rewards of an output for reinforcement learning, as reward functions for TRL.

A reward function gets lists of prompts and completions, one per output, and the columns of the data set
(`question_id`), and returns one reward per output. `log_metric(name, value)` adds a value to the trainer's log.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from agentark import StudyError
from agentark.answers import is_right, same
from agentark.distill.scorer import StepScorer, aggregate
from agentark.schemas import Question
from agentark.traces.reading import answer_of

LOGGED = ("accuracy", "agreement", "judged")  # see `monitor` and `pair_accuracy`


def complete_scores(scorer: StepScorer, questions: Sequence[Question], texts: Sequence[str]) -> list[list[float]]:
    """Return the step scores of each output. An output without an answer scores 0 in every step.

    Otherwise an output that stops before a step that may be wrong would get more reward than a complete one.
    """
    scores = scorer([q.text for q in questions], texts)
    stated = [answer_of(text, q) is not None for text, q in zip(texts, questions, strict=True)]
    return [own if has_answer else [0.0] * len(own) for own, has_answer in zip(scores, stated, strict=True)]


def process_reward(scorer: StepScorer, questions: Sequence[Question], how: str) -> Callable:
    """Return a reward function: the aggregated step scores, 0 without an answer. It logs pair_accuracy as `judged`."""
    by_id = {q.question_id: q for q in questions}

    def process(prompts, completions, question_id, log_metric=None, **_) -> list[float]:
        texts, output_questions = [c[0]["content"] for c in completions], [by_id[key] for key in question_id]
        rewarded = [aggregate(scores, how) for scores in complete_scores(scorer, output_questions, texts)]
        if log_metric:
            right = [is_right(answer_of(text, q), q) for text, q in zip(texts, output_questions, strict=True)]
            judged = pair_accuracy(rewarded, right, question_id)
            if judged is not None:
                log_metric("judged", judged)
        return rewarded

    return process


def pair_accuracy(rewards: Sequence[float], right: Sequence[bool], questions: Sequence[str]) -> float | None:
    """Return the share of pairs (a right and a wrong output to the same question) in which the right output has the
    higher reward. A tie counts as half. None without such a pair.

    This is the accuracy of a reward model on the outputs of the policy that is trained against it.
    """
    pairs = []
    rows = sorted(zip(questions, rewards, right, strict=True))
    for _, group in itertools.groupby(rows, key=lambda row: row[0]):
        outputs = list(group)
        good, bad = ([reward for _, reward, ok in outputs if ok == wanted] for wanted in (True, False))
        pairs += [(g > b) + (g == b) / 2 for g, b in itertools.product(good, bad)]
    return sum(pairs) / len(pairs) if pairs else None


def outcome_reward(questions: Sequence[Question]) -> Callable:
    """Reward function: 1 for a right answer, else 0 (the verifiable part of the public code's reward, "PRMVR")."""
    by_id = {q.question_id: q for q in questions}

    def outcome(prompts, completions, question_id, **_) -> list[float]:
        pairs = [(c[0]["content"], by_id[key]) for c, key in zip(completions, question_id, strict=True)]
        return [float(is_right(answer_of(text, q), q)) for text, q in pairs]

    return outcome


def monitor(questions: Sequence[Question], agreed: Mapping[str, str]) -> Callable:
    """Return a reward function that is always 0 and logs two shares of outputs: `accuracy`, with a right answer, and
    `agreement`, with the answer of the question's debate in `agreed` (question_id -> answer)."""
    by_id = {q.question_id: q for q in questions}

    def watch(prompts, completions, question_id, log_metric=None, **_) -> list[float]:
        answers = [answer_of(c[0]["content"], by_id[key]) for c, key in zip(completions, question_id, strict=True)]
        if log_metric:
            pairs = list(zip(answers, question_id, strict=True))
            log_metric("accuracy", fmean(is_right(a, by_id[key]) for a, key in pairs))
            if debated := [(a, key) for a, key in pairs if key in agreed]:
                log_metric(
                    "agreement", fmean(a is not None and same(a, agreed[key], by_id[key].kind) for a, key in debated)
                )
        return [0.0] * len(answers)

    return watch


def rewards(
    reward_model: Path | None, questions: Sequence[Question], how: str, outcome_weight: float
) -> tuple[list[Callable], list[float]]:
    """Return the reward functions and their weights.

    The aggregated step score of `reward_model`, if there is one, has weight 1. The outcome has weight `outcome_weight`,
    if that is not 0. Raises StudyError if both are missing.
    """
    judged = [process_reward(StepScorer(reward_model), questions, how)] if reward_model else []
    checked = [outcome_reward(questions)] if outcome_weight else []
    if not judged + checked:
        raise StudyError("no reward: name a reward_model, or set outcome_weight above 0")
    return judged + checked, [1.0] * len(judged) + [outcome_weight] * len(checked)
