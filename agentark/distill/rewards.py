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

LOGGED = ("accuracy", "agreement", "judged")  # see `watched` and `pair_accuracy`


def complete_scores(scorer: StepScorer, questions: Sequence[Question], texts: Sequence[str]) -> list[list[float]]:
    """The step scores of outputs; all 0 if an output states no answer.

    Without that exception an output that stops before a step it might get wrong earns more than a complete one.
    """
    scores = scorer([q.text for q in questions], texts)
    stated = [answer_of(text, q) is not None for text, q in zip(texts, questions, strict=True)]
    return [own if whole else [0.0] * len(own) for own, whole in zip(scores, stated, strict=True)]


def process_reward(scorer: StepScorer, questions: Sequence[Question], how: str) -> Callable:
    """The aggregated step scores of an output, 0 if it states no answer. Logs `judged`: see pair_accuracy."""
    asked = {q.question_id: q for q in questions}

    def process(prompts, completions, question_id, log_metric=None, **_) -> list[float]:
        texts, about = [c[0]["content"] for c in completions], [asked[key] for key in question_id]
        given = [aggregate(scores, how) for scores in complete_scores(scorer, about, texts)]
        if log_metric:
            right = [is_right(answer_of(text, q), q) for text, q in zip(texts, about, strict=True)]
            judged = pair_accuracy(given, right, question_id)
            if judged is not None:
                log_metric("judged", judged)
        return given

    return process


def pair_accuracy(rewards: Sequence[float], right: Sequence[bool], questions: Sequence[str]) -> float | None:
    """Of all pairs of a right and a wrong output to the same question, the share in which the right one has the higher
    reward; a tie counts as half. None without such a pair.

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
    """1 for a correct final answer, else 0 (the verifiable part of the public code's reward, "PRMVR")."""
    asked = {q.question_id: q for q in questions}

    def outcome(prompts, completions, question_id, **_) -> list[float]:
        pairs = [(c[0]["content"], asked[key]) for c, key in zip(completions, question_id, strict=True)]
        return [float(is_right(answer_of(text, q), q)) for text, q in pairs]

    return outcome


def watched(questions: Sequence[Question], agreed: Mapping[str, str]) -> Callable:
    """A reward of 0 that logs two shares of the outputs: `accuracy`, whose answer is right, and `agreement`, whose
    answer is that of the question's debate in `agreed` (question_id -> answer)."""
    asked = {q.question_id: q for q in questions}

    def watch(prompts, completions, question_id, log_metric=None, **_) -> list[float]:
        answers = [answer_of(c[0]["content"], asked[key]) for c, key in zip(completions, question_id, strict=True)]
        if log_metric:
            pairs = list(zip(answers, question_id, strict=True))
            log_metric("accuracy", fmean(is_right(a, asked[key]) for a, key in pairs))
            if debated := [(a, key) for a, key in pairs if key in agreed]:
                log_metric(
                    "agreement", fmean(a is not None and same(a, agreed[key], asked[key].kind) for a, key in debated)
                )
        return [0.0] * len(answers)

    return watch


def rewards(
    reward_model: Path | None, questions: Sequence[Question], how: str, outcome_weight: float
) -> tuple[list[Callable], list[float]]:
    """Reward functions and their weights.

    They are the aggregated step score of `reward_model`, if there is one, with weight 1, and the outcome with weight
    `outcome_weight`, if that is not 0. Raises StudyError if there is no reward at all.
    """
    judged = [process_reward(StepScorer(reward_model), questions, how)] if reward_model else []
    checked = [outcome_reward(questions)] if outcome_weight else []
    if not judged + checked:
        raise StudyError("no reward: name a reward_model, or set outcome_weight above 0")
    return judged + checked, [1.0] * len(judged) + [outcome_weight] * len(checked)
