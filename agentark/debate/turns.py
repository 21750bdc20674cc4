"""The interface of protocols: turns, and conversations of turns."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol as Interface

from agentark.engines import Reply
from agentark.models.chat import Messages
from agentark.schemas import Question


@dataclass(frozen=True)
class Turn:
    """One call: agent, round (both from 1), prompt and temperature. Agent 0 is the judge.

    played_by: in a debate among different models, the agent whose model generates; None if it is `agent`.
    """

    agent: int
    round: int
    messages: Messages
    temperature: float
    played_by: int | None = None


Conversation = Generator[list[Turn], list[Reply], None]


class Protocol(Interface):
    """The rules of a conversation. See `protocols`."""

    @property
    def calls(self) -> int:
        """The maximum number of calls in one conversation."""

    def turns(self, question: Question) -> Conversation:
        """Yield the next turns, receive their replies, and return at the end of the conversation."""
