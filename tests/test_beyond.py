"""Methods that are not the paper's: DPO, outcome rewards, IMAD and SDPO, trained from a base model of the study."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from agentark import StudyError, root
from agentark.distill import imad, outcome, preference, sdpo, sft
from agentark.distill.settings import SFT
from agentark.evaluate.leaderboard import contexts
from agentark.schemas import CheckedTrace, Question, Trace
from agentark.tasks import TASKS
from agentark.traces.check import check_traces

BASE = root() / "data/models/llama-small"
QUESTIONS = TASKS["equation"].questions(8, "train", 0)
BY_ID = {q.question_id: q for q in QUESTIONS}
SETTINGS = {"steps": 3, "training_tokens": 10**6, "batch_size": 2, "num_generations": 4, "max_tokens": 40,
            "learning_rate": 0.001, "temperature": 1.0, "beta": 0.0}  # fmt: skip


def debate(question: Question, turns: Sequence[tuple[int, int, bool]]) -> list[CheckedTrace]:
    """A checked debate with a trace for each (agent, round, whether the trace is correct)."""
    wrong = "answer : 0" if question.answer != "0" else "answer : 1"
    traces = [
        Trace(
            question_id=question.question_id,
            agent=agent,
            round=round,
            text=question.solution if right else wrong,
            answer=None,
            prompt_tokens=1,
            completion_tokens=1,
            finish_reason="stop",
        )
        for agent, round, right in turns
    ]
    answered = [t.model_copy(update={"answer": t.text.rpartition(" : ")[2]}) for t in traces]
    return check_traces(answered, [question])


TEMPLATES = "{prompt}\n{solution}revise agent 1", "agent 1\n{successful_previous_attempt}\n"
CORRECTED = [(1, 1, False), (2, 1, True), (1, 2, True), (2, 2, True), (0, 3, True)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    tensors, others = weights(first), weights(second)
    return all(torch.equal(tensors[name], others[name]) for name in tensors)


turns = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=9,
                 unique_by=lambda turn: turn[:2])  # fmt: skip


@given(drawn=turns)
def test_dpo_pair_is_an_agents_correct_last_trace_over_its_last_wrong_one(drawn):
    checked = debate(QUESTIONS[0], sorted(drawn, key=lambda t: (t[1], t[0])))
    corrected = [
        agent
        for agent in {a for a, *_ in drawn}
        for own in [[right for a, _, right in sorted(drawn, key=lambda t: t[1]) if a == agent]]
        if own[-1] and not all(own)
    ]
    if not corrected:
        with pytest.raises(StudyError, match="no agent of the debates corrects itself"):
            preference.pairs(checked, BY_ID)
    else:
        (pair,) = preference.pairs(checked, BY_ID)  # all correct texts are equal here, and so are all wrong ones
        assert pair.question == QUESTIONS[0].text and pair.chosen == QUESTIONS[0].solution
        assert pair.rejected.startswith("answer : ")


@pytest.mark.parametrize("changes", [{}, {"sft_weight": 1.0}, {"lora_rank": 4}])
def test_dpo_prefers_corrected_traces_and_is_repeatable(tmp_path, changes):
    pairs = preference.pairs([t for q in QUESTIONS for t in debate(q, CORRECTED)], BY_ID)
    values = {"steps": 12, "batch_size": 4, "learning_rate": 0.001, "beta": 0.1}
    settings = preference.DPO.read(values | changes)
    curves = [preference.train(BASE, pairs, tmp_path / name, 0, settings) for name in ("one", "two")]
    assert curves[0] == curves[1] and same_weights(tmp_path / "one", tmp_path / "two")
    assert curves[0][0]["accuracy"] == 0 and curves[0][-1]["accuracy"] == 1
    assert curves[0][-1]["tokens"] > curves[0][0]["tokens"]


def test_agreement_with_the_debate_is_rewarded_regardless_of_the_gold_answer():
    reward = outcome.agreement_reward(QUESTIONS[:2], {QUESTIONS[0].question_id: "7", QUESTIONS[1].question_id: "8"})
    texts, keys = ["answer : 7", "answer : 7", "no"], [QUESTIONS[i].question_id for i in (0, 1, 0)]
    assert reward(None, [[{"content": text}] for text in texts], keys) == [1.0, 0.0, 0.0]


def test_consensus_training_stops_at_its_token_budget(tmp_path):
    agreed = {q.question_id: q.answer for q in QUESTIONS}
    settings = outcome.Outcome.read(SETTINGS)
    curve = outcome.consensus(BASE, QUESTIONS, agreed, tmp_path / "whole", 0, settings)
    assert [row["step"] for row in curve] == [1, 2, 3]
    budget = settings.but(training_tokens=int(curve[0]["tokens"]) + 1)
    stopped = outcome.consensus(BASE, QUESTIONS, agreed, tmp_path / "short", 0, budget)
    assert [row["step"] for row in stopped] == [1, 2] and stopped[0] == curve[0]
    # With 1,000 steps, only every 25th and the last one are logged.
    sparse = outcome.consensus(BASE, QUESTIONS, agreed, tmp_path / "seldom", 0, budget.but(steps=1000))
    assert [(row["step"], row["tokens"]) for row in sparse] == [(2, stopped[-1]["tokens"])]


def test_consensus_training_without_agreed_answers_is_refused(tmp_path):
    with pytest.raises(StudyError, match="no debate agrees on an answer"):
        outcome.consensus(BASE, QUESTIONS, {}, tmp_path / "out", 0, outcome.Outcome.read(SETTINGS))
    assert not (tmp_path / "out").exists()


def test_transcript_is_a_debate_that_ends_in_a_correct_summary():
    question = QUESTIONS[0]
    checked = debate(question, [*CORRECTED[:1], (3, 1, True), *CORRECTED[1:]])
    ((prompt, text),) = contexts.transcripts(checked, BY_ID, 2)
    assert prompt == question.text and text.endswith(question.solution) and "agent 3" not in text
    assert [line for line in text.split("\n") if line.startswith("agent")] == ["agent 1", "agent 2"] * 2
    assert imad.is_debate(text, "agent ") and not imad.is_debate(question.solution, "agent ")
    assert not imad.is_debate(f"agent 1\n{question.solution}", "agent ")
    for turns_without_correct_summary in ([*CORRECTED[:4], (0, 3, False)], CORRECTED[:4]):
        with pytest.raises(StudyError, match="no debate has a right summary"):
            contexts.transcripts(debate(question, turns_without_correct_summary), BY_ID, 2)


@pytest.mark.parametrize(
    ("elapsed", "expected"), [(0.0, [2.0, 1.0, 1.0]), (0.5, [0.5, 0.0, 1.0]), (1.0, [0.0, 0.0, 1.0])]
)
def test_debate_form_reward_and_token_limit_decrease_during_training(elapsed, expected):
    question = QUESTIONS[0]
    settings = imad.Internalise.read(SETTINGS | {"max_tokens": 100, "last_limit": 20})
    transcript = f"agent 1\nanswer : 0\nagent 2\nanswer : 0\n{question.solution}"
    texts, lengths = [transcript, question.solution, question.solution], [80, 90, 20]
    functions = imad.rewards([question], settings, "agent ")(lambda: elapsed)
    arguments = dict(
        prompts=None, completions=[[{"content": text}] for text in texts], completion_ids=[[0] * n for n in lengths],
        question_id=[question.question_id] * 3,
    )  # fmt: skip
    assert [sum(r) for r in zip(*(function(**arguments) for function in functions), strict=True)] == expected


def test_imad_trains_in_two_stages(tmp_path):
    checked = [t for q in QUESTIONS for t in debate(q, CORRECTED)]
    transcripts = contexts.transcripts(checked, BY_ID, 2)
    first_stage = SFT.read({"steps": 2, "batch_size": 4, "learning_rate": 0.001})
    second_stage = imad.Internalise.read(SETTINGS | {"max_tokens": 60, "last_limit": 40})
    sft.train(BASE, transcripts, tmp_path / "first", 0, first_stage, "imad")
    curve = imad.train(tmp_path / "first", QUESTIONS, "agent ", tmp_path / "second", 0, second_stage)
    assert [row["step"] for row in curve] == [1, 2, 3]
    assert not same_weights(tmp_path / "first", tmp_path / "second") and not same_weights(BASE, tmp_path / "first")


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_sdpo_is_repeatable_with_a_fixed_and_a_following_teacher(tmp_path, rate):
    settings = sdpo.SDPO.read(SETTINGS | {"divergence": 1.0, "update_rate": rate})
    curve = sdpo.train(BASE, QUESTIONS, TEMPLATES, tmp_path / "out", 0, settings)
    assert [row["step"] for row in curve] == [1, 2, 3]
    assert curve[0]["tokens"] < curve[-1]["tokens"]
    again = sdpo.train(BASE, QUESTIONS, TEMPLATES, tmp_path / "again", 0, settings)
    assert curve == again and same_weights(tmp_path / "out", tmp_path / "again")


def test_sdpo_refuses_an_adapter_with_a_teacher_that_follows_the_student(tmp_path):
    settings = sdpo.SDPO.read(SETTINGS | {"divergence": 1.0, "update_rate": 0.5, "lora_rank": 4})
    with pytest.raises(StudyError, match=r"sdpo\.update_rate"):
        sdpo.train(BASE, QUESTIONS, TEMPLATES, tmp_path / "out", 0, settings)
