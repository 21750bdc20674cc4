"""The requests of debates: how many tokens each agent reads and writes in each step, without any text.

Lengths, agreement and prompts come from the token counts of recorded debates (`shape_of`), or from a plan's rates
(`planned`). As in `debate.run`, all debates advance together: a step is one turn of every unfinished debate, and a
finished debate is summarised in the next step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agentark.engines.batching import SUFFIX
from agentark.plan.sizes import INSTRUCTION
from agentark.traces.reading import SUMMARISER

# Tokens at the end of a prompt that the agents of a question do not share. transformers: the suffix that `batching`
# computes for each row. vLLM: the instruction and one block, since its prefix cache has only full blocks of 16 tokens.
OWN_BATCHED, OWN_CACHED = SUFFIX, INSTRUCTION + 16
COLUMNS = ["question", "step", "agent", "read", "computed", "written"]


@dataclass(frozen=True)
class Spread:
    """How recorded debates differ, one row per debate. prompts: length of the first prompt over the mean; replies: by
    round, each agent's reply over the mean of the round; rounds: number of rounds. A debate that ended before a round
    has the replies of another debate in it."""

    prompts: np.ndarray
    replies: tuple[np.ndarray, ...]
    rounds: np.ndarray


@dataclass(frozen=True)
class Shape:
    """Lengths of one task's debates, in tokens.

    question: the mean first prompt; written: the mean reply by round; reached: share of debates that have each round;
    label: tokens that a prompt adds to each quoted trace; own: tokens at the end of a prompt that the agents of a
    question do not share; cap: the longest reply.
    """

    question: float
    written: tuple[float, ...]
    reached: tuple[float, ...]
    spread: Spread
    label: float = 0.0
    own: float = OWN_CACHED
    cap: float = np.inf

    def lengths(self, at: int, drawn: np.ndarray, agents: int) -> np.ndarray:
        """Lengths of replies in round `at` (from 1) of the debates `drawn`. Later rounds use the last known round."""
        mean = self.written[min(at, len(self.written)) - 1]
        if mean >= self.cap:
            return np.full((len(drawn), agents), self.cap)
        replies = self.spread.replies[min(at, len(self.spread.replies)) - 1]
        return np.clip(mean * replies[drawn][:, np.arange(agents) % replies.shape[1]], 1, self.cap)


def shape_of(traces: pd.DataFrame, agents: int, cap: float) -> Shape:
    """The shape of recorded debates (Trace rows), restricted to their first `agents` agents.

    With fewer agents than in the traces, a debate ends as soon as the first `agents` answers agree.
    """
    solved = traces[traces["agent"] != SUMMARISER]
    tokens = solved.pivot_table(index="question_id", columns=["round", "agent"], values="completion_tokens")
    prompts = solved[solved["agent"] == 1].pivot_table(index="question_id", columns="round", values="prompt_tokens")
    label = (prompts[2] - prompts[1] - tokens[1].sum(axis=1)).mean() / tokens[1].shape[1]
    answers = solved[solved["agent"] <= agents].groupby(["question_id", "round"])["answer"]
    differ = answers.nunique(dropna=False).unstack().fillna(1).gt(1).cumprod(axis=1).iloc[:, :-1]
    replies, written = [], []
    for _, own in tokens.T.groupby(level="round"):
        known = own.T.dropna().to_numpy()
        filled = own.T.to_numpy().copy()
        filled[np.isnan(filled[:, 0])] = np.resize(known, (np.isnan(filled[:, 0]).sum(), filled.shape[1]))
        written.append(known.mean())
        replies.append(filled / known.mean())
    spread = Spread((prompts[1] / prompts[1].mean()).to_numpy(), tuple(replies), 1 + differ.sum(axis=1).to_numpy())
    reached = (1.0, *differ.mean())
    return Shape(prompts[1].mean(), tuple(written), reached, spread, label, OWN_BATCHED, cap)


def planned(rates: pd.DataFrame, agents: int, spread: Spread, cap: float) -> Shape:
    """The shape of one task's debate, or of its passes, from a plan's rates by kind of call (`plan.rates`). A plan has
    only means, so the spread of lengths comes from recorded debates."""
    rounds = rates[rates["kind"] != "summary"]
    reached = rounds["calls"] / (agents if len(rounds) > 1 else rounds["calls"].iloc[0])
    return Shape(rounds["read"].iloc[0], tuple(rounds["written"]), tuple(reached), spread, cap=cap)


def requests(
    shape: Shape, questions: int, agents: int, rounds: int, summary: bool = True, seed: int = 0
) -> pd.DataFrame:
    """A row per request of `questions` debates, in the order in which a run sends them: by step, question and agent.

    Debates are drawn from `shape.spread`. In each round the share `shape.reached` of them goes on, those with the most
    recorded rounds first. computed: prompt tokens that no other agent of the question has computed in the same step.
    With one round and without `summary` the requests are independent samples.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(shape.spread.rounds), size=questions)
    longest = np.argsort(-shape.spread.rounds[drawn] + rng.random(questions))
    share = np.empty(questions)
    share[longest] = (np.arange(questions) + 0.5) / questions
    last = 1 + sum(((share < reached).astype(int) for reached in shape.reached[1:rounds]), np.zeros(questions, int))
    first, before, parts = shape.question * shape.spread.prompts[drawn], np.zeros((questions, agents)), []
    for step in range(1, rounds + 1 + summary):
        read = first + (before + shape.label).sum(axis=1) * (step > 1)
        written = shape.lengths(step, drawn, agents)
        if step <= rounds:
            parts.append(turn(np.flatnonzero(last >= step), step, range(1, agents + 1), read, written))
        if summary and step > 1:
            parts.append(turn(np.flatnonzero(last == step - 1), step, [SUMMARISER], read, before))
        before = written
    table = pd.concat(parts, ignore_index=True)
    shared = (table["agent"] > 1).to_numpy()
    table["computed"] = np.where(shared, np.minimum(shape.own, table["read"]), table["read"])
    return table.sort_values(["step", "question", "agent"], ignore_index=True)[COLUMNS]


def turn(asked: np.ndarray, step: int, agents: Sequence[int], read: np.ndarray, written: np.ndarray) -> pd.DataFrame:
    """The requests of one step to `agents` in the debates `asked`; read: by debate; written: by debate and agent."""
    lengths = written[asked, : len(agents)].ravel()
    number, agent = np.repeat(asked, len(agents)), np.tile(np.asarray(agents, int), len(asked))
    return pd.DataFrame({"question": number, "step": step, "agent": agent, "read": read[number], "written": lengths})


def merged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The requests of several tasks whose debates run together."""
    shifted, offset = [], 0
    for table in tables:
        shifted.append(table.assign(question=table["question"] + offset))
        offset += table["question"].max() + 1
    return pd.concat(shifted).sort_values(["step", "question", "agent"], ignore_index=True)
