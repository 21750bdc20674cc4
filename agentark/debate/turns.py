"""What a protocol is: turns, and conversations of turns."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol as Interface

from agentark.engines import Reply
from agentark.models.chat import Messages
from agentark.schemas import Question


@dataclass(frozen=True)
class Turn:
    """One call: which agent speaks in which round (both from 1), to what, at what temperature."""

    agent: int
    round: int
    messages: Messages
    temperature: float


Conversation = Generator[list[Turn], list[Reply], None]


class Protocol(Interface):
    @property
    def calls(self) -> int:
        """The most calls that one conversation can make."""

    def turns(self, question: Question) -> Conversation: ...
