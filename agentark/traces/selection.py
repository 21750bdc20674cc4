"""Knowledge extraction (method, section 2): select the traces of a debate to train on."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from agentark import StudyError
from agentark.schemas import CheckedTrace, Question, Trajectory
from agentark.traces.reading import SUMMARISER, answer_only, distance, structure

MIN_DISTANCE = 0.25  # DA: a further trace must differ in at least a quarter of its steps


def diverse(traces: Sequence[CheckedTrace], most: int, question: Question) -> list[CheckedTrace]:
    """Up to `most` traces: the first, then repeatedly the farthest from those kept, if at least MIN_DISTANCE away."""
    kept = list(range(min(most, 1, len(traces))))
    path = [structure(t.text, question) for t in traces]
    while len(kept) < min(most, len(traces)):
        nearest = {i: min(distance(path[i], path[k]) for k in kept) for i in range(len(traces)) if i not in kept}
        best = max(nearest, key=lambda i: (nearest[i], -i))
        if nearest[best] < MIN_DISTANCE:
            break
        kept.append(best)
    return [traces[i] for i in kept]


def trajectories(checked: Sequence[CheckedTrace]) -> list[CheckedTrace]:
    """The n + 1 trajectories of each question: each agent's last trace and the summary (the paper's Table 3)."""
    by_debate = itertools.groupby(checked, key=lambda t: t.question_id)
    return [t for _, debate in by_debate for t in {t.agent: t for t in debate}.values()]


def select(
    checked: Sequence[CheckedTrace],
    questions: Iterable[Question],
    most_diverse: int,
    corrective_first: bool = True,
    rsft_all: bool = False,
) -> tuple[list[Trajectory], dict[str, int]]:
    """Select each method's training examples. Returns them and counts of what was kept and why the rest was dropped.

    Only correct trajectories are used, corrective ones first (or last, for comparison). Equal texts are used once.
    R-SFT takes the first trajectory of each question, or all (`rsft_all`). DA takes up to `most_diverse` trajectories
    of different structure if at least two agents were right.
    """
    by_id = {q.question_id: q for q in questions}
    count: Counter[str] = Counter()
    rows = []
    for key, group in itertools.groupby(trajectories(checked), key=lambda t: t.question_id):
        debate = list(group)
        correct = sorted(
            (t for t in debate if t.correct), key=lambda t: (t.corrective != corrective_first, t.agent == 0, t.agent)
        )
        first: dict[str, CheckedTrace] = {}
        for trace in correct:
            first.setdefault(trace.text, trace)
        distinct = list(first.values())
        count["questions"] += 1
        count["trajectories"] += len(debate)
        count["dropped: no answer stated"] += sum(t.answer is None for t in debate)
        count["dropped: wrong answer"] += sum(t.answer is not None and not t.correct for t in debate)
        count["dropped: same text as another"] += len(correct) - len(distinct)
        count["correct and distinct"] += len(distinct)
        count["corrective among them"] += sum(t.corrective for t in distinct)
        count["questions with a correct trajectory"] += bool(correct)
        right_agents = sum(t.correct for t in debate if t.agent != SUMMARISER)
        count["questions with two agents right"] += right_agents >= 2
        chosen = diverse(distinct, most_diverse, by_id[key]) if right_agents >= 2 else []
        count["kept for R-SFT"] += len(distinct) if rsft_all else bool(distinct)
        count["kept for DA"] += len(chosen)
        count["questions with several traces for DA"] += len(chosen) > 1
        for rank, trace in enumerate(distinct):
            assert trace.answer is not None  # since the trace is correct
            rows.append(
                Trajectory(
                    question_id=key,
                    agent=trace.agent,
                    round=trace.round,
                    prompt=by_id[key].text,
                    text=trace.text,
                    answer=trace.answer,
                    answer_only=answer_only(trace.answer, by_id[key]),
                    corrective=trace.corrective,
                    rank=rank,
                    for_rsft=rsft_all or rank == 0,
                    for_da=trace in chosen,
                )
            )
    return rows, dict(count)


KEPT = {"rsft": "for_rsft", "da": "for_da"}


def of(trajectories: Iterable[Trajectory], questions: Iterable[Question]) -> list[Trajectory]:
    """The trajectories of the given questions."""
    keys = {q.question_id for q in questions}
    return [t for t in trajectories if t.question_id in keys]


def trimmed(trajectories: Sequence[Trajectory], like: Sequence[Trajectory], method: str) -> list[Trajectory]:
    """Cut the traces for `method` to the number in `like`: as many per question, then further ones of any question.

    Raises StudyError if there are too few.
    """
    chosen, wanted = ([t for t in some if getattr(t, KEPT[method])] for some in (trajectories, like))
    if len(chosen) < len(wanted):
        raise StudyError(f"{method}: {len(chosen)} traces cannot be cut to {len(wanted)}; ask for more samples")
    quota = Counter(t.question_id for t in wanted)
    seen: Counter[str] = Counter()
    late = []  # 0 within a question's quota, otherwise increasing with the trace's place in its question
    for trace in chosen:
        place = seen[trace.question_id]
        late.append(0 if place < quota[trace.question_id] else 1 + place)
        seen[trace.question_id] += 1
    order = sorted(range(len(chosen)), key=late.__getitem__)[: len(wanted)]
    return [chosen[i] for i in sorted(order)]


def yielded(sources: dict[str, Sequence[Trajectory | CheckedTrace]], questions: Sequence[Question]) -> pd.DataFrame:
    """One row per question: whether each source (a column) has a correct trace, and the question's `level`."""
    has = {name: {t.question_id for t in some} for name, some in sources.items()}
    rows = {name: [q.question_id in keys for q in questions] for name, keys in has.items()}
    return pd.DataFrame(rows | {"level": [q.level for q in questions]}, index=[q.question_id for q in questions])
