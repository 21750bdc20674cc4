"""Running a protocol over many questions: all conversations of a group advance in step, groups share the cores."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from agentark.debate.independent import Vote
from agentark.debate.turns import Protocol, Turn
from agentark.engines import Engine, Reply, Request, Store, batches_itself, engine, inheritable, short_name
from agentark.parallel import isolated, progress, run_all, tick, workers
from agentark.schemas import Question, Seconds, Trace
from agentark.traces.reading import answer_of

GROUP = 64  # questions in step; fixed, so that batches, and with them bytes, do not depend on the number of cores


def run_group(
    protocol: Protocol, questions: Sequence[Question], engine: Engine, store: Store, seed: int, max_tokens: int
) -> list[tuple[str, Turn, Reply]]:
    """Run one group in step. Returns every turn with its reply, by question, then in the order spoken."""
    conversations: dict[str, list[tuple[str, Turn, Reply]]] = {q.question_id: [] for q in questions}
    live = {q.question_id: protocol.turns(q) for q in questions}
    turns = {key: next(conversation) for key, conversation in live.items()}
    while turns:
        asked = [(key, turn) for key in turns for turn in turns[key]]
        # Agent and round set apart what is otherwise the same request, so that each gets a sample of its own.
        requests = [
            Request(turn.messages, turn.temperature, max_tokens, seed * 10_000 + turn.round * 100 + turn.agent)
            for _, turn in asked
        ]
        received: dict[str, list[Reply]] = {key: [] for key in turns}
        for (key, turn), reply in zip(asked, store.generate(engine, requests), strict=True):
            received[key].append(reply)
            conversations[key].append((key, turn, reply))
        turns = {}
        for key, replies in received.items():
            try:
                turns[key] = live[key].send(replies)
            except StopIteration:
                tick()
    return [entry for q in questions for entry in conversations[q.question_id]]


def _group(model: str | Path, store: Path, **asked):
    """One group in one worker process."""
    return run_group(engine=engine(model), store=Store(store), **asked)


def run_debates(
    protocol: Protocol, questions: Sequence[Question], model: str | Path, store: Path, seed: int, max_tokens: int
) -> tuple[list[Trace], list[Seconds]]:
    """Run `protocol` on every question with `model` as every agent, resuming what `store` holds.

    `model` is what `engines.engine` takes; `max_tokens` bounds a reply. With transformers, groups of questions share the
    cores; an engine that batches by itself is given all questions of a round at once.
    """
    call = dict(protocol=protocol, model=model, store=store, seed=seed, max_tokens=max_tokens)
    name = type(protocol).__name__.lower()
    with progress(len(questions), f"{name} by {short_name(model)}", "question"):
        results = _results(questions, call)
    asked, traces, seconds = {q.question_id: q for q in questions}, [], []
    for key, turn, reply in (entry for group in results for entry in group):
        traces.append(
            Trace(
                question_id=key,
                agent=turn.agent,
                round=turn.round,
                text=reply.text,
                answer=answer_of(reply.text, asked[key]),
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                finish_reason=reply.finish_reason,
            )
        )
        seconds.append(
            Seconds(question_id=key, protocol=name, agent=turn.agent, round=turn.round, seconds=reply.seconds)
        )
    return traces, seconds


def _results(questions: Sequence[Question], call: dict) -> list[list[tuple[str, Turn, Reply]]]:
    """The turns and replies of all groups of questions."""
    model = call["model"]
    if str(model).startswith("vllm:"):  # the next model will want the GPU for itself
        return [isolated(_group, **call, questions=questions)]
    if batches_itself(model):
        return [_group(**call, questions=questions)]
    if inheritable(model):
        engine(model)  # here, once: the workers inherit it
    groups = [questions[i : i + GROUP] for i in range(0, len(questions), GROUP)]
    return run_all(_group, [dict(**call, questions=group) for group in groups], crowded=True)


def greedy_answers(
    models: Sequence[str | Path], settings: dict[str, Sequence[Question]], store: Path, max_tokens: int
) -> list[dict[str, tuple[list[Trace], list[Seconds]]]]:
    """The answers of each of `models`, alone and by greedy decoding, to the questions of each setting; see run_debates.

    Models that transformers runs share the cores, if there is one for each: it then answers all of its questions in one
    process, without waiting for others.
    """
    calls = [dict(model=model, settings=settings, store=store, max_tokens=max_tokens) for model in models]
    with progress(len(calls) * sum(map(len, settings.values())), f"greedy answers of {len(calls)} models", "question"):
        if len(calls) < workers() or any(map(batches_itself, models)):
            return [_answers(**call) for call in calls]
        importlib.import_module("agentark.engines.transformers")  # here, once: the workers inherit it
        return run_all(_answers, calls)


def _answers(model: str | Path, settings: dict[str, Sequence[Question]], store: Path, max_tokens: int) -> dict:
    return {name: run_debates(Vote(1, 0.0), asked, model, store, 0, max_tokens) for name, asked in settings.items()}
