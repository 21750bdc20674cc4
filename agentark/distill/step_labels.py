"""Training data of the process reward model: traces of each question. Each step is labelled by whether it agrees with
the debate's consensus (method, section 3, PAD part 1).

The debate's own traces are all complete solutions by the teacher. A policy that is trained against a reward model
writes other kinds of traces, and finds those that the reward model has never seen and scores too high (reward hacking:
Gao et al. 2022, arXiv 2210.10760). The training data therefore also contain the student's own samples, traces that are
cut off, traces that repeat a step, and traces that state only an answer.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentark.schemas import CheckedTrace, Question
from agentark.traces.check import agreement, consensus_of
from agentark.traces.reading import answer_only, lines_of

DIRECT = 2  # replies with only an answer: the consensus, and another of the debate's answers if there is one


@dataclass(frozen=True)
class DebateSteps:
    """The traces of one question, and for each of their steps whether it agrees with the consensus of the debate."""

    question: str
    traces: list[str]
    agrees: list[list[bool]]


def debates(
    checked: Sequence[CheckedTrace],
    questions: Mapping[str, Question],
    samples: Mapping[str, Sequence[str]] | None = None,
    verified: bool = False,
) -> list[DebateSteps]:
    """One item per debate that has a consensus: its distinct traces, in order, each step labelled by agreement.

    samples: the student's own traces by question_id; they and `variants` are added. None: only the debates' traces.
    verified: see check.consensus_of; if true, debates in which no agent is right are left out.
    """
    items = []
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        debate, question = list(group), questions[key]
        agreed = consensus_of(debate, question, verified)
        if agreed.answer is None:
            continue
        texts = [t.text for t in debate]
        if samples is not None:
            texts += samples.get(key, ())
            others = [t.answer for t in debate if t.answer is not None]
            answers = list(dict.fromkeys([agreed.answer, *others]))[:DIRECT]
            texts += variants(texts, [answer_only(answer, question) for answer in answers], random.Random(key))
        distinct = [text for text in dict.fromkeys(texts) if lines_of(text)]
        items.append(DebateSteps(question.text, distinct, [agreement(text, agreed, question) for text in distinct]))
    return items


def agreed_answers(checked: Sequence[CheckedTrace], questions: Mapping[str, Question]) -> dict[str, str]:
    """question_id -> the answer that its debate agrees on; debates without any answer are left out."""
    found = {}
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        answer = consensus_of(group, questions[key]).answer
        if answer is not None:
            found[key] = answer
    return found


def variants(texts: Sequence[str], direct: Sequence[str], rng: random.Random) -> list[str]:
    """Further traces of a question: one of `texts` cut off after a random step, one with a random step repeated later,
    and the replies in `direct`. Texts of a single line are neither cut nor given a repeated step."""
    several = [lines for lines in map(lines_of, texts) if len(lines) > 1]
    extra = []
    if several:
        lines = rng.choice(several)
        extra.append("\n".join(lines[: rng.randint(1, len(lines) - 1)]))
        lines = rng.choice(several)
        first = rng.randrange(len(lines) - 1)
        after = rng.randint(first + 1, len(lines) - 1)
        extra.append("\n".join([*lines[:after], lines[first], *lines[after:]]))
    return [*extra, *direct]
