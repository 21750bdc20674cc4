"""What agents are told in each turn. Two orders of a revision prompt, to the same content:

shared   question, all traces in one fixed order, then the agent's own instruction: all agents of a question share the
         prefix, which an engine computes once;
chat     the paper's: the question, the agent's own last trace as its turn, then the peers' traces as the next message.

The generated world has words of its own. For published questions the words are ours; the paper's are not printed in it.
"""

from dataclasses import dataclass

from agentark.schemas import Question
from agentark.tasks import TASKS

ORDERS = ("shared", "chat")

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Wording:
    """Texts with the places {i} (an agent's number), {trace}, {question}, {traces}."""

    agent: str  # one trace among all
    peer: str  # one trace among the others'
    revise: str  # shared order
    compare: str  # chat order, after the agent's own turn
    summarise: str


WORLD = Wording(
    agent="agent {i}\n{trace}\n",
    peer="peer {i}\n{trace}\n",
    revise="{question}\n{traces}revise agent {i}",
    compare="{traces}revise",
    summarise="{question}\n{traces}summarise",
)
ENGLISH = Wording(
    agent="### Agent {i}\n\n{trace}\n\n",
    peer="### Agent {i}\n\n{trace}\n\n",
    revise="{question}\n\nSeveral agents have answered this question:\n\n{traces}You are agent {i}. Check your solution "
    "step by step against those of the other agents, and correct what is wrong in it. Then write the whole solution "
    "again, in your own way, ending as the question asks.",
    compare="Other agents have answered the same question:\n\n{traces}Check your solution step by step against theirs, "
    "and correct what is wrong in it. Then write the whole solution again, in your own way, ending as the question asks.",
    summarise="{question}\n\nSeveral agents have answered this question:\n\n{traces}Weigh their solutions against each "
    "other, step by step. Then write one final solution, ending as the question asks.",
)


def wording(question: Question) -> Wording:
    return WORLD if question.task in TASKS else ENGLISH


def listed(form: str, traces: list[str]) -> str:
    """Traces one after another; what a model thought before it spoke (Qwen3's marked thinking) is its own."""
    spoken = [t.rpartition("</think>")[2].strip() if "</think>" in t else t for t in traces]
    return "".join(form.format(i=i, trace=trace) for i, trace in enumerate(spoken, start=1))


def solve_prompt(question: str) -> Messages:
    """Round 1: the question alone."""
    return [{"role": "user", "content": question}]


def revise_prompt(question: Question, traces: list[str], own: int, order: str) -> Messages:
    """A later round: `traces` of all agents, `own` the index of the agent that now revises."""
    words = wording(question)
    if order == "shared":
        told = listed(words.agent, traces)
        return [{"role": "user", "content": words.revise.format(question=question.text, traces=told, i=own + 1)}]
    told = listed(words.peer, traces[:own] + traces[own + 1 :])
    return [
        {"role": "user", "content": question.text},
        {"role": "assistant", "content": traces[own]},
        {"role": "user", "content": words.compare.format(traces=told)},
    ]


def summarise_prompt(question: Question, traces: list[str]) -> Messages:
    """The summariser's: the question and every agent's last trace."""
    words = wording(question)
    told = listed(words.agent, traces)
    return [{"role": "user", "content": words.summarise.format(question=question.text, traces=told)}]
