"""Whether the longest requests of a run fit into the windows of its models, before anything is fetched or trained.

It reads a model's config.json alone: a stage starts without the libraries that load models.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentark import StudyError, folder_of, root, without_ray

WINDOWS = {  # `max_position_embeddings` in config.json on the hub, of the models in plan.sizes
    "Qwen/Qwen3-32B": 40_960,
    "Qwen/Qwen3-14B": 40_960,
    "Qwen/Qwen3-8B": 40_960,
    "Qwen/Qwen3-1.7B": 40_960,
    "Qwen/Qwen3-0.6B": 40_960,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 32_768,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": 32_768,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_192,
    "google/gemma-3-27b-it": 131_072,
}
LLAMA_CPP = 8_192  # engines.llama_cpp.WINDOW, which a model's own window is not known to exceed before the file is read
FIRST = ("01_questions", "02_checkpoint", "03_debate")  # stages before any training
TAKEN = ("teacher", "students", "agents", "max_tokens", "thought_tokens")  # what a command may change
# Tokens of the chat template and the instructions: at most 70 words (debate.prompts.ENGLISH.revise) and a form of answer.
WORDING = 128
HEADING = 8  # tokens before each agent's trace, "### Agent 1"


def window(params: Mapping[str, Any], name: str) -> int | None:
    """Tokens in the window of a teacher or student, from its folder or else from WINDOWS; None if it is not known."""
    if name.startswith("http"):
        return None
    if without_ray(name).startswith("llama.cpp:"):
        return LLAMA_CPP
    own = folder_of(name)
    source = sources(params).get(Path(own).name, own)
    for folder in (own, source):
        file = root() / folder / "config.json"
        if file.is_file():
            try:
                config = json.loads(file.read_text(encoding="utf-8"))
                return config.get("text_config", config).get("max_position_embeddings")
            except (ValueError, AttributeError):
                raise StudyError(f"{file}: not a model's configuration; fetch the model again") from None
    return WINDOWS.get(source)


def sources(params: Mapping[str, Any]) -> dict[str, str]:
    """The source of each checkpoint in params.yaml. Raises StudyError for one in another form."""
    section, form = params.get("checkpoints") or {}, "write it as {source: Qwen/Qwen3-8B}"
    if not isinstance(section, dict):
        raise StudyError(
            f"params.yaml: checkpoints is {section!r:.80}; write one line for each, as in qwen3-8b: {{source: Qwen/Qwen3-8B}}"
        )
    found = {}
    for name, facts in section.items():
        source = facts.get("source") if isinstance(facts, dict) else None
        if not isinstance(source, str) or not source.strip():
            raise StudyError(f"params.yaml: checkpoints.{name} is {facts!r:.80}, not a source; {form}")
        found[str(name)] = source
    return found


def models(params: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The teacher and the students of the study. Raises StudyError if they are not names."""
    teacher, students = params.get("teacher"), params.get("students")
    if not isinstance(teacher, str) or not teacher.strip():
        raise StudyError(
            f"params.yaml: teacher is {shown(params, 'teacher')}; write a model's name, as in teacher: data/models/qwen3-8b"
        )
    if not isinstance(students, list) or not students or not all(isinstance(one, str) and one for one in students):
        raise StudyError(
            f"params.yaml: students is {shown(params, 'students')}; write a list of names, as in students: [qwen3-0.6b]"
        )
    return teacher, students


def shown(params: Mapping[str, Any], name: str) -> str:
    """What stands under a name in params.yaml, for an error."""
    value = params.get(name)
    return "missing" if name not in params else "empty" if value is None else f"{value!r:.80}"


def too_long(params: Mapping[str, Any]) -> Iterator[str]:
    """A line for each model whose window is shorter than its longest request, with what to change.

    The generated world has no limit on questions (`room` is 0); its models were trained on all of its prompts.
    """
    asked = params.get("questions") or {}
    given: list[Any] = [asked.get("room"), *(params.get(name) for name in ("agents", "max_tokens", "thought_tokens"))]
    if not all(isinstance(number, int) for number in given) or not asked["room"]:
        return  # the notebook that reads a wrong value tells it
    room, agents, most, thought = given
    alone = {"questions.room": room, "template": WORDING, "max_tokens": most, "thought_tokens": thought}
    debate = alone | {
        f"{agents} agents' replies": agents * (most + HEADING)
    }  # without thoughts, which no other agent sees
    teacher, students = models(params)
    for name, parts in [(teacher, debate), *((name, alone) for name in students)]:
        there, need = window(params, name), sum(parts.values())
        if there and need > there:
            summed = " + ".join(f"{tokens:,} ({part})" for part, tokens in parts.items() if tokens)
            fewer = (
                "lower questions.room, max_tokens or agents"
                if parts is debate
                else "lower questions.room or max_tokens"
            )
            yield f"{name}: a window of {there:,} tokens, but the longest request has {summed} = {need:,}; {fewer}"


def check(params: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Raises StudyError, in one line, if the longest request of a model does not fit. changed: parameters of a command."""
    given = {name: changed[name] for name in TAKEN if name in changed}
    asked = params.get("questions") or {}
    if not isinstance(asked, dict):
        raise StudyError(f"params.yaml: questions is {asked!r:.80}; write a section, as in questions: {{train: 100}}")
    if asked.get("room"):
        given["questions"] = asked | {"room": changed.get("room", asked["room"])}
    for line in too_long({**params, **given}):
        raise StudyError(line)
