"""In: the text of a reply and a gold answer. Out: the answer stated in the reply, and whether two answers are equal."""

from agentark.answers.correct import agrees, gradable, is_correct, is_right, same, stated_answer

__all__ = ["agrees", "gradable", "is_correct", "is_right", "same", "stated_answer"]
