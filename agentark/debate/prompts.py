"""What agents are told in each turn. Two orders of a revision prompt, to the same content:

shared   question, all traces in one fixed order, then the agent's own instruction: all agents of a question share the
         prefix, which an engine computes once;
chat     the paper's: the question, the agent's own last trace as its turn, then the peers' traces as the next message.
"""

ORDERS = ("shared", "chat")

Messages = list[dict[str, str]]


def solve_prompt(question: str) -> Messages:
    """Round 1: the question alone."""
    return [{"role": "user", "content": question}]


def revise_prompt(question: str, traces: list[str], own: int, order: str) -> Messages:
    """A later round: `traces` of all agents, `own` the index of the agent that now revises."""
    if order == "shared":
        told = "\n".join(f"agent {i}\n{trace}" for i, trace in enumerate(traces, start=1))
        return [{"role": "user", "content": f"{question}\n{told}\nrevise agent {own + 1}"}]
    peers = "\n".join(f"peer {i}\n{t}" for i, t in enumerate(traces[:own] + traces[own + 1 :], start=1))
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": traces[own]},
        {"role": "user", "content": f"{peers}\nrevise"},
    ]


def summarise_prompt(question: str, traces: list[str]) -> Messages:
    """The summariser's: the question and every agent's last trace."""
    told = "\n".join(f"agent {i}\n{trace}" for i, trace in enumerate(traces, start=1))
    return [{"role": "user", "content": f"{question}\n{told}\nsummarise"}]
