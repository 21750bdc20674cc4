"""On-policy distillation of the study's base models: the loss, teachers with private contexts, the token budget."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from checkpoints import build
from safetensors.torch import load_file

from agentark import StudyError, root
from agentark.debate.prompts import revise_prompt
from agentark.debate.protocols import Debate
from agentark.distill import on_policy
from agentark.distill.on_policy import Lesson, OnPolicy, Reader
from agentark.evaluate.leaderboard import contexts
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.schemas import Trace
from agentark.tasks import TASKS

STUDENT, TEACHER = (root() / "data/models" / name for name in ("llama-small", "teacher"))
QUESTIONS = TASKS["equation"].questions(8, "train", 0)
DEBATE = Debate(3, 2, 1.0, 0.0, "shared")


def settings(**chosen) -> OnPolicy:
    defaults = {"steps": 3, "training_tokens": 10**6, "batch_size": 4, "max_tokens": 12, "learning_rate": 0.001,
             "temperature": 1.0, "divergence": 1.0}  # fmt: skip
    return OnPolicy.read(defaults | chosen)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def largest_change(folder: Path, base: Path = STUDENT) -> float:
    before, after = weights(base), weights(folder)
    return max(float((before[name] - after[name]).abs().max()) for name in before)


def traces(texts: list[str]) -> list[Trace]:
    """A debate of three agents about each question, in which the last reply of agent n is texts[n - 1]."""

    def trace(key: str, agent: int, round: int, text: str) -> Trace:
        return Trace(question_id=key, agent=agent, round=round, text=text, answer=None, prompt_tokens=1,
                     completion_tokens=1, finish_reason="stop")  # fmt: skip

    return [
        trace(q.question_id, agent, round, text if round > 1 else f"first {text}")
        for q in QUESTIONS
        for round in (1, 2, 3)
        for agent, text in enumerate(texts, start=1)
        if round < 3
    ] + [trace(QUESTIONS[-1].question_id, 0, 3, "summary")]


@pytest.fixture(scope="module")
def student():
    return loading.load(STUDENT)


def direct_loss(student, readers, inputs: dict, divergence: float) -> float:
    """The loss of a step, computed directly: one output at a time and without padding."""
    total, tokens = 0.0, 0
    for i in range(len(inputs["weights"])):
        output = inputs["completion_ids"][i][inputs["completion_mask"][i].bool()]
        tokens += len(output)

        def log_p(model, prompt, mask, output=output):
            ids = torch.cat([prompt[mask.bool()], output])[None]
            return model(input_ids=ids).logits[0, -len(output) - 1 : -1].log_softmax(-1)

        p = log_p(student, inputs["prompt_ids"][i], inputs["prompt_mask"][i])
        for k, reader in enumerate(readers):
            q = log_p(reader.model, inputs[f"teacher_ids_{k}"][i], inputs[f"teacher_mask_{k}"][i])
            mixture = ((1 - divergence) * p.exp() + divergence * q.exp()).log()
            to_teacher, to_student = ((a.exp() * (a - mixture)).sum() for a in (q, p))
            both = divergence * to_teacher + (1 - divergence) * to_student
            limits = {0.0: (q.exp() * (q - p)).sum(), 1.0: (p.exp() * (p - q)).sum()}
            total += float(inputs["weights"][i, k] * limits.get(divergence, both))
    return total / tokens


@pytest.mark.parametrize("divergence", [0.0, 0.3, 1.0])
def test_loss_is_the_weighted_mean_divergence_over_output_tokens(divergence, monkeypatch, tmp_path):
    lessons = [
        Lesson(q.text, [solve_prompt(q.text), revise_prompt(q, [q.solution] * n, 0, "shared")], [0.25, 0.75])
        for n, q in enumerate(QUESTIONS[:4], start=1)
    ]
    compared = []
    original = on_policy.PrivateContext._compute_loss

    def record_both(trainer, student, inputs, number):
        result = original(trainer, student, inputs, number)
        with torch.inference_mode():
            compared.append((float(result[0].detach()), direct_loss(student, trainer.readers, inputs, divergence)))
        return result

    monkeypatch.setattr(on_policy.PrivateContext, "_compute_loss", record_both)
    on_policy.train(STUDENT, [TEACHER, STUDENT], lessons, tmp_path, 0, settings(steps=2, divergence=divergence))
    for actual, expected in compared:
        assert actual == pytest.approx(expected, rel=1e-4) and expected > 0.01


def test_student_that_is_its_own_teacher_starts_with_zero_loss(tmp_path):
    curve = on_policy.train(STUDENT, [STUDENT], contexts.question_only(QUESTIONS), tmp_path, 0, settings(steps=1))
    assert curve[0]["loss"] == pytest.approx(0, abs=1e-5)


def test_training_is_repeatable_and_a_split_batch_trains_on_the_same_tokens(tmp_path):
    lessons = contexts.question_only(QUESTIONS)
    curves = [
        on_policy.train(STUDENT, [TEACHER], lessons, tmp_path / name, 0, settings(**more))
        for name, more in (("one", {}), ("again", {}), ("split", {"per_device_batch_size": 2}))
    ]
    assert curves[0] == curves[1]
    one, again = weights(tmp_path / "one"), weights(tmp_path / "again")
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert curves[2][0]["tokens"] == curves[0][0]["tokens"]
    assert largest_change(tmp_path / "one") > 1e-3


def test_training_ends_at_its_token_budget(tmp_path):
    lessons = contexts.question_only(QUESTIONS)
    full = on_policy.train(STUDENT, [TEACHER], lessons, tmp_path / "whole", 0, settings(steps=6))
    budget = int(full[2]["tokens"])
    limited = on_policy.train(
        STUDENT, [TEACHER], lessons, tmp_path / "half", 0, settings(steps=6, training_tokens=budget)
    )
    assert len(full) == 6 and 3 <= len(limited) <= 4
    assert budget <= limited[-1]["tokens"] < budget * 1.4


def test_student_and_teachers_read_the_system_prompt():
    system = "keys"  # a word of the world's vocabulary; the chat template puts it before the question
    lessons = contexts.next_round(DEBATE, traces(["a", "b", "c"]), QUESTIONS, [1, 2], system)
    assert [c[0] for c in lessons[0].contexts] == [{"role": "system", "content": system}] * 2
    assert contexts.question_only(QUESTIONS, 2, system)[0].contexts[0] == solve_prompt(QUESTIONS[0].text, system)
    (row, *_) = on_policy.rows(lessons, loading.load_tokenizer(STUDENT), system)
    assert row["prompt"][0]["content"].startswith(system) and row["prompt"][-1]["content"].endswith(QUESTIONS[0].text)


def test_teacher_with_update_rate_one_ends_with_the_weights_of_the_student(monkeypatch, tmp_path):
    readers = []
    monkeypatch.setattr(on_policy, "Reader", lambda *arguments: readers.append(Reader(*arguments)) or readers[-1])
    lessons = contexts.next_round(DEBATE, traces(["a", "b", "c"]), QUESTIONS, [1])
    on_policy.train(STUDENT, [STUDENT], lessons, tmp_path, 0, settings(update_rate=1.0))
    student, teacher = weights(tmp_path), dict(readers[0].model.named_parameters())
    assert largest_change(tmp_path) > 1e-3
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    for unsupported in ({"lora_rank": 4}, {"save_steps": 1}):
        with pytest.raises(StudyError, match=r"on_policy\.update_rate"):
            on_policy.train(STUDENT, [STUDENT], lessons, tmp_path, 0, settings(update_rate=0.1, **unsupported))


def test_teacher_with_another_vocabulary_is_refused(tmp_path):
    other = build("llama", tmp_path / "other")
    with pytest.raises(StudyError, match=r"other: its vocabulary is not the student's"):
        on_policy.train(STUDENT, [other], contexts.question_only(QUESTIONS), tmp_path / "out", 0, settings())
    assert not (tmp_path / "out").exists()


def test_lora_training_saves_the_adapter_and_the_merged_student(tmp_path):
    on_policy.train(STUDENT, [TEACHER], contexts.question_only(QUESTIONS), tmp_path, 0, settings(lora_rank=4))
    assert (tmp_path / "adapter/adapter_config.json").is_file() and largest_change(tmp_path) > 1e-4


@pytest.mark.parametrize(
    ("communication", "shown"),
    [("on", ["x", "y", "z"]), ("off", ["y", "y", "y"]), ("other", ["u", "y", "u"])],
)
def test_teacher_reads_the_prompt_of_its_agent_in_the_next_round(communication, shown):
    foreign = {q.question_id: ["u", "v", "u"] for q in QUESTIONS}
    debate = Debate(3, 2, 1.0, 0.0, "shared", communication=communication, foreign=foreign)
    lessons = contexts.next_round(debate, traces(["x", "y", "z"]), QUESTIONS, [2])
    for lesson, question in zip(lessons, QUESTIONS, strict=True):
        assert lesson.contexts == [revise_prompt(question, shown, 1, "shared")] and lesson.weights == [1.0]
    with pytest.raises(StudyError, match="no debate about it"):
        contexts.next_round(debate, traces(["x", "y", "z"])[:-7], QUESTIONS, [2])


def test_confidence_is_the_geometric_mean_of_the_tokens_probabilities():
    reader = Reader(TEACHER, loading.load_tokenizer(TEACHER))
    prompts, replies = [solve_prompt(q.text) for q in QUESTIONS], [q.solution for q in QUESTIONS]
    replies[0] = "answer : 3"
    confidences = reader.confidences(prompts, replies)
    for prompt, reply, confidence in zip(prompts, replies, confidences, strict=True):
        ids = reader.prompts([prompt], 0)[0][0].tolist()
        reply_ids = [*reader.tokenizer(reply, add_special_tokens=False).input_ids, reader.tokenizer.eos_token_id]
        logits = reader.model(input_ids=torch.tensor([ids + reply_ids])).logits[0, len(ids) - 1 : -1]
        assert confidence == pytest.approx(math.exp(-float(F.cross_entropy(logits, torch.tensor(reply_ids)))), rel=1e-4)
    assert confidences[0] < min(confidences[1:])


def test_teachers_are_weighted_by_the_softmax_of_their_confidence():
    lessons = contexts.next_round(DEBATE, traces(["a", "b", "c"]), QUESTIONS, [1, 2])
    replies = [[q.solution, "answer : 3"] for q in QUESTIONS]
    for lesson in on_policy.by_confidence(lessons, [TEACHER, TEACHER], replies):
        sure, unsure = lesson.weights
        assert sure + unsure == pytest.approx(1) and 0.5 < sure < math.e / (1 + math.e)
