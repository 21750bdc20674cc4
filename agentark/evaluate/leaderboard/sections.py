"""The section of a method in params.yaml: its function, its inputs and its settings."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field

from agentark import StudyError, root
from agentark.distill.settings import Settings, validated

ENTRIES = "agentark/evaluate/leaderboard/entries.py"
SETTINGS = ("homogeneous", "specialists", "small")
Method = Callable[..., list[dict]]  # (material, out, seed, settings) -> learning curve, its last row with "tokens"


class Stage(BaseModel):
    """A function and the values of its settings: a method, or one stage of a method."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    file: str = ENTRIES  # relative to the project
    function: str
    settings: dict[str, Any]


class Section(Stage):
    """A method of the leaderboard."""

    family: str = Field(min_length=1)  # rows of one family train on equal tokens
    gold: bool  # whether right answers are used in training
    # The traces that the method needs, "" for none; "other": the debate of the next question.
    source: Literal["", "debate", "debate_off", "vote", "greedy", "self_revision", "other"]
    student: Literal["", "teacher"] = ""  # "teacher": train the last model of the debate

    @classmethod
    def of(cls, sections: Mapping[str, Mapping[str, Any]], method: str, setting: str) -> Self:
        """The section of a method; the section's values for this setting replace its general ones.

        Raises StudyError for a method without a section, for an unknown or missing key and for an invalid value.
        """
        if method not in sections:
            raise StudyError(f"leaderboard: no method {method!r}; choose one of {', '.join(sections)}")
        values = sections[method] | sections[method].get(setting, {})
        return validated(cls, {k: v for k, v in values.items() if k not in SETTINGS}, f"leaderboard.{method}")


def method_of(stage: Stage, source: str) -> tuple[Method, Settings]:
    """The function of a stage, and its settings with the traces' source, if the function uses one.

    Raises StudyError if there is no such function, or for settings that it does not take.
    """
    if not (root() / stage.file).is_file():
        raise StudyError(f"leaderboard: file {stage.file} is not in the project; correct `file` of {stage.function}")
    try:
        function = getattr(import_module(stage.file.removesuffix(".py").replace("/", ".")), stage.function)
        kind = get_type_hints(function)["settings"]
        read, fields = kind.read, kind.model_fields
    except (ImportError, AttributeError, KeyError, TypeError, NameError, SyntaxError) as error:
        raise StudyError(
            f"leaderboard: {stage.function!r} in {stage.file} is not a method ({type(error).__name__}: {error}); write a "
            "function with the parameters material, out, seed and settings, the last annotated with a class derived from "
            "agentark.distill.settings.Settings"
        ) from None
    if "source" in stage.settings:
        raise StudyError(
            f"leaderboard: settings of {stage.function}: source stands in the section, not in its settings"
        )
    return function, read(stage.settings | ({"source": source} if "source" in fields else {}))
