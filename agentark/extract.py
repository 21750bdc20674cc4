"""Knowledge extraction (method, section 2): which traces of a debate are worth learning from."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pandas as pd

from agentark.answers import is_right
from agentark.debate.protocols import SUMMARISER, majority
from agentark.schemas import CheckedTrace, Question, Trace, Trajectory
from agentark.tasks.base import check
from agentark.traces import answer_only, claim_of, distance, in_world, lines_of, structure

NEVER = 10**9  # a round after all others
MIN_DISTANCE = 0.25  # DA: a further trace must differ in at least a quarter of its steps to count as another way


def check_traces(traces: Sequence[Trace], questions: Iterable[Question]) -> list[CheckedTrace]:
    """Mark every trace and every step: right by the truth, and in agreement with its debate's consensus.

    The consensus is that of the debate's verified traces, of any round; where there is none, no step agrees. A step that
    claims nothing to be compared agrees if its trace ends right. Only the generated world knows the truth of steps.
    """
    gold = {q.question_id: q for q in questions}
    checked = []
    for key, group in itertools.groupby(traces, key=lambda t: t.question_id):
        debate = list(group)
        right = {id(t): is_right(t.answer, gold[key]) for t in debate}
        verified = [t for t in debate if t.agent != SUMMARISER and right[id(t)]]
        agreed = consensus(verified, gold[key])
        erred = {t.agent: min((o.round for o in debate if o.agent == t.agent and not right[id(o)]), default=NEVER)
                 for t in debate}  # fmt: skip
        for trace in debate:
            steps, first_error = lines_of(trace.text), erred[trace.agent]
            claims = [claim_of(step, gold[key]) for step in steps]
            checked.append(
                CheckedTrace(
                    **trace.model_dump(),
                    correct=right[id(trace)],
                    corrective=right[id(trace)] and trace.agent != SUMMARISER and first_error < trace.round,
                    steps=steps,
                    step_right=[s.right for s in check(gold[key], trace.text)] if in_world(gold[key]) else [],
                    step_agrees=[agreed.get(c[0]) == c[1] if c else right[id(trace)] for c in claims],
                )
            )
    return checked


def last_traces(debate: Iterable[Trace]) -> list[Trace]:
    """Each agent's last trace, the summariser's left out."""
    return list({t.agent: t for t in debate if t.agent != SUMMARISER}.values())


def consensus(traces: Iterable[Trace], question: Question) -> dict[str, str]:
    """For each quantity that traces name, the value that most of them give it; quantities in a tie are left out."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for trace in traces:
        claims = [claim_of(line, question) for line in lines_of(trace.text)]
        for name, value in dict(filter(None, claims)).items():
            votes[name][value] += 1
    agreed = {}
    for name, counts in votes.items():
        (value, first), *rest = counts.most_common(2)
        if not rest or rest[0][1] < first:
            agreed[name] = value
    return agreed


def accuracy_by_round(checked: Sequence[CheckedTrace], questions: Iterable[Question], rounds: int) -> pd.DataFrame:
    """A row a round: accuracy of one agent and of the agents' vote, and the shares of agents corrected and spoilt since
    round 1. A debate that ended early counts with its last traces."""
    gold = {q.question_id: q for q in questions}
    debates = [list(g) for _, g in itertools.groupby(checked, key=lambda t: t.question_id)]
    rows = []
    for k in range(1, rounds + 1):
        single, vote, corrected, spoilt = [], [], [], []
        for debate in debates:
            said = [t for t in debate if t.agent != SUMMARISER]
            first = {t.agent: t.correct for t in said if t.round == 1}
            now = last_traces(t for t in said if t.round <= k)
            question = gold[debate[0].question_id]
            vote.append(is_right(majority((t.answer for t in now), question), question))
            single += [t.correct for t in now]
            corrected += [t.correct and not first[t.agent] for t in now]
            spoilt += [first[t.agent] and not t.correct for t in now]
        shares = {"single": single, "vote": vote, "corrected": corrected, "spoilt": spoilt}
        rows.append({"round": k, **{name: sum(v) / len(v) for name, v in shares.items()}, "n": len(debates)})
    return pd.DataFrame(rows)


def diverse(traces: Sequence[CheckedTrace], most: int, question: Question) -> list[CheckedTrace]:
    """Up to `most` traces, the first kept, each next the farthest from those kept, while at least MIN_DISTANCE away."""
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
    """The n + 1 trajectories of each question: every agent's last trace and the summary (the paper's Table 3)."""
    by_debate = itertools.groupby(checked, key=lambda t: t.question_id)
    return [t for _, debate in by_debate for t in {t.agent: t for t in debate}.values()]


def select(
    checked: Sequence[CheckedTrace], questions: Iterable[Question], most_diverse: int, corrective_first: bool = True
) -> tuple[list[Trajectory], dict[str, int]]:
    """Choose what each method trains on, and count what was kept and why the rest was not.

    Correct trajectories only, corrective ones first (or last, for comparison), equal texts once. R-SFT takes the first of each question; DA, where
    at least two agents were right, up to `most_diverse` of different structure.
    """
    asked = {q.question_id: q for q in questions}
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
        chosen = diverse(distinct, most_diverse, asked[key]) if right_agents >= 2 else []
        count["kept for R-SFT"] += bool(distinct)
        count["kept for DA"] += len(chosen)
        for rank, trace in enumerate(distinct):
            rows.append(
                Trajectory(
                    question_id=key,
                    agent=trace.agent,
                    round=trace.round,
                    prompt=asked[key].text,
                    text=trace.text,
                    answer=trace.answer,
                    answer_only=answer_only(trace.answer, asked[key]),
                    corrective=trace.corrective,
                    rank=rank,
                    for_rsft=rank == 0,
                    for_da=trace in chosen,
                )
            )
    return rows, dict(count)
