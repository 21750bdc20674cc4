"""The prompts of each turn. A revision prompt has the same content in one of two orders:

shared   question, all traces in a fixed order, then the agent's instruction: all agents of a question share the prefix,
         which an engine computes once;
chat     the paper's: the question, the agent's own last trace as its turn, then the peers' traces as the next message.

The generated world has its own wording. For published questions the wording is ours, since the paper does not print its
prompts.

The roles of the other protocols have prompts for published questions only. In the generated world they use the two
skills of its teacher, revising and summarising: see `argue_prompt`, `moderate_prompt` and `verify_prompt`.
"""

from dataclasses import dataclass

from agentark.models.chat import Messages, solve_prompt
from agentark.schemas import Question
from agentark.traces.reading import in_world

ORDERS = ("shared", "chat")


@dataclass(frozen=True)
class Wording:
    """Templates with the fields {i} (an agent's number), {trace}, {question}, {traces}."""

    agent: str  # one trace in a list of all agents' traces
    peer: str  # one trace in a list without the agent's own trace
    revise: str  # instruction in the shared order
    compare: str  # instruction in the chat order, after the agent's own turn
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
    revise="{question}\n\nSeveral agents have answered this question:\n\n{traces}You are agent {i}. Check your "
    "solution step by step against those of the other agents, and correct what is wrong in it. Then write the whole "
    "solution again, in your own way, ending as the question asks.",
    compare="Other agents have answered the same question:\n\n{traces}Check your solution step by step against theirs, "
    "and correct what is wrong in it. Then write the whole solution again, in your own way, ending as the question "
    "asks.",
    summarise="{question}\n\nSeveral agents have answered this question:\n\n{traces}Weigh their solutions against each "
    "other, step by step. Then write one final solution, ending as the question asks.",
)

# MAD (arXiv 2305.19118): two sides and a moderator.
SIDES = ("affirmative", "negative")
UNDECIDED = "UNDECIDED"
OPPOSE = (
    "{question}\n\nThe other side of a debate has answered this question:\n\n{trace}\n\nYou disagree. Say what is "
    "wrong in it, then write a solution of your own, ending as the question asks."
)
ANSWER_BACK = (
    "The other side replies:\n\n{trace}\n\nYou need not agree: what counts is to find the right answer. Say where they "
    "are right and where they are wrong, then write your solution again, ending as the question asks."
)
ARGUMENT = "### The {side} side, round {round}\n\n{trace}\n\n"
MODERATE = (
    "{question}\n\nTwo sides have debated this question:\n\n{arguments}You are the moderator. If one side's answer is "
    "clearly right, write one final solution, ending as the question asks. If not, reply with the one word "
    f"{UNDECIDED}, and they will debate another round."
)
JUDGE = (
    "{question}\n\nTwo sides have debated this question:\n\n{arguments}You are the moderator, and the debate is over. "
    "List the answers that were given and weigh the reasons for each. Then write one final solution, ending as the "
    "question asks."
)

# MAV (arXiv 2502.20379): each verifier checks one aspect. The aspects are those of its public code for MATH.
ASPECTS = (
    "Check every step for units and quantities that are mixed up.",
    "Put the solution in your own words, and look into whatever then seems doubtful.",
    "Check edge cases and extreme values: would the solution still hold?",
    "Check for the mistakes that are common in questions of this kind, slips of reckoning among them.",
    "Check whether the knowledge that the question calls for is applied as it should be.",
)
VERIFY = (
    "{question}\n\nSomeone has proposed this solution:\n\n{trace}\n\nYou are a verifier. {aspect} Then end with a line "
    'of its own: "Verdict: approve" if you found nothing wrong, else "Verdict: reject".'
)

# DyLAN (arXiv 2310.02170): one ranker over all solutions.
RANK = (
    "{question}\n\nSeveral agents have answered this question:\n\n{traces}Judge their solutions step by step. Which "
    "{keep} are the best? End with their agents' numbers, the best first, in brackets, like [2, 1]."
)


def wording(question: Question) -> Wording:
    """The templates for a question of the generated world, or for a published one."""
    return WORLD if in_world(question) else ENGLISH


def listed(form: str, traces: list[str]) -> str:
    """Join traces in the template `form`."""
    return "".join(form.format(i=i, trace=trace) for i, trace in enumerate(traces, start=1))


def revise_prompt(question: Question, traces: list[str], own: int, order: str) -> Messages:
    """The prompt of a later round. traces: of all agents; own: index of the revising agent; order: one of ORDERS."""
    words = wording(question)
    if order == "shared":
        listing = listed(words.agent, traces)
        return [{"role": "user", "content": words.revise.format(question=question.text, traces=listing, i=own + 1)}]
    listing = listed(words.peer, traces[:own] + traces[own + 1 :])
    return [
        {"role": "user", "content": question.text},
        {"role": "assistant", "content": traces[own]},
        {"role": "user", "content": words.compare.format(traces=listing)},
    ]


def summarise_prompt(question: Question, traces: list[str]) -> Messages:
    """The summariser's prompt: the question and each agent's last trace."""
    words = wording(question)
    listing = listed(words.agent, traces)
    return [{"role": "user", "content": words.summarise.format(question=question.text, traces=listing)}]


def argue_prompt(question: Question, arguments: list[str]) -> Messages:
    """MAD: the prompt of the next side after `arguments`, which alternate between affirmative and negative.

    Each side gets the other's arguments as user messages of a chat, from the first argument on. The teacher of the
    generated world cannot follow an instruction to disagree. There each side first answers independently, then revises
    its last trace given the opponent's.
    """
    side = len(arguments) % 2
    own, others = arguments[side::2], arguments[1 - side :: 2]
    if in_world(question):
        if not own:
            return solve_prompt(question.text)
        pair = [own[-1], others[-1]] if side == 0 else [others[-1], own[-1]]
        return revise_prompt(question, pair, side, "shared")
    first = OPPOSE.format(question=question.text, trace=others[0]) if side else question.text
    messages = solve_prompt(first)
    for mine, reply in zip(own, others[side:], strict=True):
        messages.append({"role": "assistant", "content": mine})
        messages.append({"role": "user", "content": ANSWER_BACK.format(trace=reply)})
    return messages


def moderate_prompt(question: Question, arguments: list[str], last: bool) -> Messages:
    """MAD: the moderator's prompt after a round, with all arguments so far. Unless `last`, it permits another round.

    In the generated world this is the summariser's prompt with the last trace of each side.
    """
    if in_world(question):
        return summarise_prompt(question, arguments[-2:])
    listing = "".join(
        ARGUMENT.format(side=SIDES[i % 2], round=i // 2 + 1, trace=trace) for i, trace in enumerate(arguments)
    )
    return solve_prompt((JUDGE if last else MODERATE).format(question=question.text, arguments=listing))


def verify_prompt(question: Question, candidate: str, verifier: int) -> Messages:
    """MAV: the prompt of one verifier (from 0) for one candidate.

    In the generated world this is a revision prompt with the candidate as the agent's own trace.
    """
    if in_world(question):
        return revise_prompt(question, [candidate], 0, "shared")
    aspect = ASPECTS[verifier % len(ASPECTS)]
    return solve_prompt(VERIFY.format(question=question.text, trace=candidate, aspect=aspect))


def rank_prompt(question: Question, traces: list[str], keep: int) -> Messages:
    """DyLAN: the ranker's prompt for all traces of a round. Not for the generated world, whose teacher cannot rank."""
    listing = listed(ENGLISH.agent, traces)
    return solve_prompt(RANK.format(question=question.text, traces=listing, keep=keep))
