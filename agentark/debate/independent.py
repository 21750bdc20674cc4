"""The baseline without communication: independent samples and their vote."""

from dataclasses import dataclass

from agentark.debate.turns import Conversation, Turn
from agentark.models.chat import solve_prompt
from agentark.schemas import Question


@dataclass(frozen=True)
class Vote:
    """Independent answers, the most frequent wins (self-consistency); with one call, a single pass."""

    calls: int
    temperature: float

    def turns(self, question: Question) -> Conversation:
        prompt = solve_prompt(question.text)
        yield [Turn(agent, 1, prompt, self.temperature) for agent in range(1, self.calls + 1)]
