"""Run a protocol over many questions: the conversations of a group advance together, and groups run in parallel."""

import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agentark import StudyError
from agentark.debate.independent import Vote
from agentark.debate.prompts import ORDERS
from agentark.debate.turns import Protocol, Turn
from agentark.engines import (
    PLAIN,
    Chat,
    Engine,
    Reply,
    Store,
    batches_itself,
    engine,
    inheritable,
    on_cluster,
    short_name,
)
from agentark.parallel import isolated, progress, run_all, tick, workers
from agentark.schemas import Question, Seconds, Trace
from agentark.traces.reading import answer_of

GROUP = 64  # questions that advance together; constant, so that batches and output bytes do not depend on the cores
WAVE = 64 * GROUP  # questions at a time: enough for all cores or a server's slots, with bounded memory
THREADS = 512  # groups in flight on a cluster, each with at most one batch per round; more than the cluster has cores

# The minimum of each of a protocol's numbers; temperature 0 is greedy decoding
LEAST = dict.fromkeys(("agents", "rounds", "calls", "verifiers", "max_tokens"), 1)
LEAST |= dict.fromkeys(("temperature", "revision_temperature"), 0)

Rows = tuple[list[Trace], list[Seconds]]


def run_group(
    protocol: Protocol,
    questions: Sequence[Question],
    engines: Sequence[Engine],
    store: Store,
    seed: int,
    max_tokens: int,
    chat: Chat = PLAIN,
) -> list[tuple[str, Turn, Reply]]:
    """Run one group of questions together. Returns (question_id, turn, reply), ordered by question, then by turn.

    The engines are assigned cyclically: agent 1 uses the first, agent 2 the second; agent 0, the judge, uses the last.
    """
    conversations: dict[str, list[tuple[str, Turn, Reply]]] = {q.question_id: [] for q in questions}
    live = {q.question_id: protocol.turns(q) for q in questions}
    turns = {key: next(conversation) for key, conversation in live.items()}
    while turns:
        calls = [(key, turn) for key in turns for turn in turns[key]]
        # The seed includes agent and round, so that otherwise equal requests get independent samples.
        requests = [
            chat.request(turn.messages, turn.temperature, max_tokens, seed * 10_000 + turn.round * 100 + turn.agent)
            for _, turn in calls
        ]
        replies: dict[int, Reply] = {}
        for index, one in enumerate(engines):
            own = [i for i, (_, turn) in enumerate(calls) if model_of(turn, len(engines)) == index]
            if own:
                replies |= zip(own, store.generate(one, [requests[i] for i in own]), strict=True)
        received: dict[str, list[Reply]] = {key: [] for key in turns}
        for i, (key, turn) in enumerate(calls):
            reply = replies[i]
            received[key].append(reply)
            conversations[key].append((key, turn, reply))
        turns = {}
        for key, answered in received.items():
            try:
                turns[key] = live[key].send(answered)
            except StopIteration:
                tick(protocol.calls - len(conversations[key]))  # calls that an early end saves
    return [entry for q in questions for entry in conversations[q.question_id]]


def check(protocol: Protocol, max_tokens: int) -> None:
    """Raise StudyError for a value out of range, before anything is generated."""
    values = {**vars(protocol), "max_tokens": max_tokens}
    for name, least in LEAST.items():
        if name in values and not values[name] >= least:
            raise StudyError(f"{_name(protocol)}: {name}={values[name]} is below {least}; choose {least} or more")
    if values.get("order", ORDERS[0]) not in ORDERS:
        raise StudyError(
            f"{_name(protocol)}: order={values['order']!r:.80} is unknown; choose one of {', '.join(ORDERS)}"
        )


def model_of(turn: Turn, models: int) -> int:
    """Return the index of the model that generates a turn; `models` models are assigned to the agents cyclically."""
    return ((turn.agent if turn.played_by is None else turn.played_by) - 1) % models


def _group(models: Sequence[str | Path], store: Path, **asked: Any) -> Rows:
    """The rows of one group, in one worker process."""
    entries = run_group(engines=[engine(model) for model in models], store=Store(store), **asked)
    questions = {q.question_id: q for q in asked["questions"]}
    traces = [
        Trace(
            question_id=key,
            agent=turn.agent,
            round=turn.round,
            text=reply.text,
            answer=answer_of(reply.text, questions[key], reply.finish_reason == "length"),
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            finish_reason=reply.finish_reason,
            thought=reply.thought,
        )
        for key, turn, reply in entries
    ]
    name = _name(asked["protocol"])
    return traces, [
        Seconds(question_id=key, protocol=name, agent=turn.agent, round=turn.round, seconds=reply.seconds)
        for key, turn, reply in entries
    ]


def _waves(questions: Sequence[Question], **call: Any) -> list[Rows]:
    """The rows of all questions, WAVE at a time in one process."""
    return [_group(**call, questions=wave) for wave in parts(questions, WAVE)]


def run_debates(
    protocol: Protocol,
    questions: Sequence[Question],
    model: str | Path | Sequence[str | Path],
    store: Path,
    seed: int,
    max_tokens: int,
    chat: Chat = PLAIN,
) -> tuple[list[Trace], list[Seconds]]:
    """Run `protocol` on every question, continuing from the finished batches in `store`.

    `model` is one name for all agents (see `engines.engine`), or a list of names that are assigned cyclically (see
    run_group); `max_tokens` limits each reply. A trace's `text` excludes its thought. With transformers, groups run in
    parallel on the cores; an engine that batches internally receives a round of up to WAVE questions at once.
    """
    traces: list[Trace] = []
    seconds: list[Seconds] = []
    for new_traces, new_seconds in debated(protocol, questions, model, store, seed, max_tokens, chat):
        traces += new_traces
        seconds += new_seconds
    return traces, seconds


def debated(
    protocol: Protocol,
    questions: Sequence[Question],
    model: str | Path | Sequence[str | Path],
    store: Path,
    seed: int,
    max_tokens: int,
    chat: Chat = PLAIN,
) -> Iterator[Rows]:
    """Yield the results of run_debates in parts: the traces and seconds of successive questions, in their order.

    Memory does not grow with the number of questions, except with vLLM, which returns all of them at once. Raises
    StudyError for a value out of range.
    """
    check(protocol, max_tokens)
    models = [model] if isinstance(model, str | Path) else list(model)
    call: dict[str, Any] = dict(
        protocol=protocol, models=models, store=store, seed=seed, max_tokens=max_tokens, chat=chat
    )
    label = f"{_name(protocol)} by {', '.join(map(short_name, models))}"
    with progress(len(questions) * protocol.calls, label, "call"):
        yield from _results(questions, call)


def _name(protocol: Protocol) -> str:
    return type(protocol).__name__.lower()


def parts(questions: Sequence[Question], size: int) -> list[Sequence[Question]]:
    return [questions[i : i + size] for i in range(0, len(questions), size)]


def _results(questions: Sequence[Question], call: dict[str, Any]) -> Iterator[Rows]:
    """The rows of all groups of questions."""
    models = call["models"]
    together = all(map(batches_itself, models))
    if any(map(on_cluster, models)):
        for model in models:
            engine(model)  # loaded once here, for all threads below
        groups = parts(questions, WAVE if together else GROUP)
        with ThreadPoolExecutor(1 if together else THREADS) as threads:
            yield from threads.map(lambda group: _group(**call, questions=group), groups)
    elif any(str(model).startswith("vllm:") for model in models):  # frees the GPU's memory for the next model
        yield from isolated(_waves, **call, questions=questions)
    elif together:
        for wave in parts(questions, WAVE):
            yield _group(**call, questions=wave)
    else:
        for model in models:
            if inheritable(model) and not batches_itself(model):
                engine(model)  # loaded once here and inherited by the workers
        for wave in parts(questions, WAVE):
            yield from run_all(_group, [dict(**call, questions=group) for group in parts(wave, GROUP)], crowded=True)


def samples(
    model: str | Path, questions: Sequence[Question], number: int, temperature: float, store: Path, max_tokens: int,
    seed: int = 0, chat: Chat = PLAIN,
) -> dict[str, list[str]]:  # fmt: skip
    """question_id -> `number` independent samples of one model."""
    return texts_of(run_debates(Vote(number, temperature), questions, model, store, seed, max_tokens, chat)[0])


def texts_of(traces: Sequence[Trace]) -> dict[str, list[str]]:
    """question_id -> the texts of its traces."""
    found: dict[str, list[str]] = {}
    for trace in traces:
        found.setdefault(trace.question_id, []).append(trace.text)
    return found


def greedy_answers(
    models: Sequence[str | Path],
    settings: dict[str, Sequence[Question]],
    store: Path,
    max_tokens: int,
    chat: Chat = PLAIN,
) -> list[dict[str, tuple[list[Trace], list[Seconds]]]]:
    """Generate each model's own greedy answers to the questions of each setting. Returns a dict by setting per model.

    Models run by transformers share the cores if there are at least as many models as cores. Each model then answers
    all of its questions in one process.
    """
    calls: list[dict[str, Any]] = [
        dict(model=model, settings=settings, store=store, max_tokens=max_tokens, chat=chat) for model in models
    ]
    with progress(len(calls) * sum(map(len, settings.values())), f"greedy answers of {len(calls)} models", "call"):
        if any(map(on_cluster, models)):  # one model at a time if the engines schedule requests themselves
            with ThreadPoolExecutor(1 if all(map(batches_itself, models)) else len(calls)) as threads:
                return list(threads.map(lambda call: _answers(**call), calls))
        if len(calls) < workers() or any(map(batches_itself, models)):
            return [_answers(**call) for call in calls]
        importlib.import_module("agentark.engines.transformers")  # imported once here and inherited by the workers
        return run_all(_answers, calls)


def _answers(
    model: str | Path, settings: dict[str, Sequence[Question]], store: Path, max_tokens: int, chat: Chat
) -> dict:
    return {
        name: run_debates(Vote(1, 0.0), questions, model, store, 0, max_tokens, chat)
        for name, questions in settings.items()
    }
