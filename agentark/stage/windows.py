"""Check that the longest requests of a run fit into the windows of its models, before any download or training.

Only a model's config.json is read, since a stage starts without the libraries that load models.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentark import StudyError, folder_of, root, without_ray

WINDOWS = {  # `max_position_embeddings` of the models in plan.sizes, from config.json on the hub
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
LLAMA_CPP = 8_192  # engines.llama_cpp.WINDOW, an upper bound; a model's own window is known only after its file is read
FIRST = ("01_questions", "02_checkpoint", "03_debate")  # stages before any training
TAKEN = ("teacher", "students", "agents", "max_tokens", "thought_tokens")  # parameters that a command may change
# Tokens of the chat template and the instructions: at most 70 words (debate.prompts.ENGLISH.revise) and an answer form.
WORDING = 128
HEADING = 8  # tokens before each agent's trace, "### Agent 1"


def window(params: Mapping[str, Any], name: str) -> int | None:
    """Return the window of a teacher or student in tokens, from its folder or else from WINDOWS; None if unknown."""
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
    """Return the source of each checkpoint in params.yaml. Raises StudyError for an entry in another form."""
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
    """Return the teacher and the students of the study. Raises StudyError if they are not names."""
    teacher, students = params.get("teacher"), params.get("students")
    if not isinstance(teacher, str) or not teacher.strip():
        raise StudyError(
            f"params.yaml: teacher is {as_text(params, 'teacher')}; write a model's name, as in teacher: data/models/qwen3-8b"
        )
    if not isinstance(students, list) or not students or not all(isinstance(one, str) and one for one in students):
        raise StudyError(
            f"params.yaml: students is {as_text(params, 'students')}; write a list of names, as in students: [qwen3-0.6b]"
        )
    return teacher, students


def as_text(params: Mapping[str, Any], name: str) -> str:
    """Return the value of a name in params.yaml as text for an error message."""
    value = params.get(name)
    return "missing" if name not in params else "empty" if value is None else f"{value!r:.80}"


def too_long(params: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each model whose window is shorter than its longest request, with the parameters to change.

    The generated world has no limit on questions (`room` is 0); its models were trained on all of its prompts.
    """
    section = params.get("questions") or {}
    given: list[Any] = [section.get("room"), *(params.get(name) for name in ("agents", "max_tokens", "thought_tokens"))]
    if not all(isinstance(number, int) for number in given) or not section["room"]:
        return  # a wrong value raises an error in the notebook that reads it
    room, agents, most, thought = given
    single = {"questions.room": room, "template": WORDING, "max_tokens": most, "thought_tokens": thought}
    debate = single | {
        f"{agents} agents' replies": agents * (most + HEADING)
    }  # without thoughts, since no other agent sees them
    teacher, students = models(params)
    for name, parts in [(teacher, debate), *((name, single) for name in students)]:
        limit, needed = window(params, name), sum(parts.values())
        if limit and needed > limit:
            summed = " + ".join(f"{tokens:,} ({part})" for part, tokens in parts.items() if tokens)
            fewer = (
                "lower questions.room, max_tokens or agents"
                if parts is debate
                else "lower questions.room or max_tokens"
            )
            yield f"{name}: a window of {limit:,} tokens, but the longest request has {summed} = {needed:,}; {fewer}"


def check(params: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Raise a one-line StudyError if the longest request of a model does not fit. changed: a command's parameters."""
    given = {name: changed[name] for name in TAKEN if name in changed}
    section = params.get("questions") or {}
    if not isinstance(section, dict):
        raise StudyError(f"params.yaml: questions is {section!r:.80}; write a section, as in questions: {{train: 100}}")
    if section.get("room"):
        given["questions"] = section | {"room": changed.get("room", section["room"])}
    for line in too_long({**params, **given}):
        raise StudyError(line)
