"""The baseline without communication: independent samples and a majority vote."""

from dataclasses import dataclass

from agentark.debate.turns import Conversation, Turn
from agentark.models.chat import solve_prompt
from agentark.schemas import Question


@dataclass(frozen=True)
class Vote:
    """A majority vote over independent answers (self-consistency). With one call it is a single pass."""

    calls: int
    temperature: float

    def turns(self, question: Question) -> Conversation:
        prompt = solve_prompt(question.text)
        yield [Turn(agent, 1, prompt, self.temperature) for agent in range(1, self.calls + 1)]
