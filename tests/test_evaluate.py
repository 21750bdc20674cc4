"""Exact step counts, paired gains over the same questions, training examples and phases of base models."""

import random
from dataclasses import replace

import pandas as pd
import pytest
from examples import GOLD, KEYS, WRONG_STEP, question_from_family
from small_study import digests

from agentark import StudyError
from agentark.debate.prompts import ORDERS
from agentark.evaluate import predictions
from agentark.evaluate.scores import baselines, scores
from agentark.models import loading
from agentark.pretrain import build, examples, tiny, training
from agentark.schemas import Trace
from agentark.tasks import TASKS
from agentark.tasks.questions import pick
from agentark.tasks.world.steps import answer_of

CORRECTED = "bob = 12 + 3 = 16\nfix bob = 12 + 3 = 15\ncarl = 12 * 2 = 24\ntotal = 15 + 24 = 39\nanswer : 39"


def trace(text: str, agent: int, round: int, question: str = "keys") -> Trace:
    return Trace(
        question_id=question, agent=agent, round=round, text=text, answer=answer_of(text), prompt_tokens=10,
        completion_tokens=5, finish_reason="stop",
    )  # fmt: skip


def test_step_counts_of_a_correct_a_wrong_and_a_corrected_trace():
    correct = predictions.step_counts(KEYS, GOLD)
    assert correct["steps_present"] == correct["steps_needed"] == correct["steps_right"] == 3 and correct["errors"] == 0
    wrong = predictions.step_counts(KEYS, WRONG_STEP)
    assert wrong["steps_right"] == 1 and wrong["errors"] == 2 and wrong["errors_noticed"] == 0
    assert wrong["steps_grounded"] == 3
    corrected = predictions.step_counts(KEYS, CORRECTED)
    assert corrected["errors"] == corrected["errors_noticed"] == corrected["errors_mended"] == 1


def test_a_debate_predicts_its_summary_and_a_vote_its_majority_answer():
    debate = [trace(WRONG_STEP, 1, 1), trace(WRONG_STEP, 2, 1), trace(GOLD, 0, 2)]
    vote = [trace(WRONG_STEP, 1, 1), trace(GOLD, 2, 1), trace(GOLD, 3, 1)]
    for traces in (debate, vote):
        (row,) = predictions.predict(traces, [KEYS], "test", "any")
        assert row.correct and row.text == GOLD and row.calls == 3 and row.tokens == 45


def test_gains_are_paired_by_question_and_averaged_over_seeds():
    rows = []
    for i in range(40):
        question = KEYS.model_copy(update={"question_id": f"q{i:02d}"})
        for seed in range(3):
            text = GOLD if i < 20 + 10 * (seed > 0) else WRONG_STEP
            rows += predictions.predict(
                [trace(text, 1, 1, question.question_id)], [question], "test", "rsft", "s", seed
            )
        text = GOLD if i < 20 else WRONG_STEP
        rows += predictions.predict([trace(text, 1, 1, question.question_id)], [question], "test", "base", "s", 0)
    table = pd.DataFrame([r.model_dump() for r in rows])
    found = scores(table, "main", "teacher", "word", baselines)
    (gain,) = [s for s in found if s.metric == "accuracy_gain"]
    assert gain.value == pytest.approx((0 + 0.25 + 0.25) / 3) and gain.n == 40
    assert gain.lo < 0 < gain.value - 2 * gain.se  # above 0 over questions, not over the three seeds
    by_seed = {s.seed: s.value for s in found if s.metric == "accuracy" and s.method == "rsft"}
    assert by_seed == pytest.approx({"0": 0.5, "1": 0.75, "2": 0.75, "all": 2 / 3})


def test_text_answers_are_also_scored_with_f1_and_rouge():
    digest = question_from_family("digest", 3, 0)[1]
    first, *rest = digest.answer.split(" , ")
    assert set(predictions.text_scores(digest, digest.answer).values()) == {1.0}
    assert (
        predictions.text_scores(digest, " , ".join([*rest, first]))["f1"] == 1.0
    )  # F1 ignores the order, ROUGE-L does not
    assert predictions.text_scores(digest, " , ".join([*rest, first]))["rougeL"] < 1.0
    assert 0 < predictions.text_scores(digest, first)["f1"] < 1
    hops = question_from_family("hops", 3, 0)[1]
    assert predictions.text_scores(hops, hops.answer) == {"f1": 1.0, "rouge1": 1.0, "rouge2": 0.0, "rougeL": 1.0}
    for question in (digest, hops):
        assert not any(predictions.text_scores(question, None).values())
        (row,) = predictions.predict(
            [trace("answer : no", 1, 1, question.question_id)], [question], "test", "base", "s"
        )
        table = pd.DataFrame([row.model_dump()])
        metrics = {s.metric for s in scores(table, "main", "teacher", "word", baselines)}
        assert metrics >= {"accuracy", *predictions.TEXT_METRICS}
    assert (
        predictions.text_scores(question_from_family("passage", 3, 0)[1], "7")
        == predictions.text_scores(KEYS, "39")
        == {}
    )


def test_question_splits_overlap_only_for_in_domain_and_test():
    questions = [q for t in TASKS.values() for q in (*t.questions(4, "train", 0), *t.questions(4, "test", 0))]
    questions += TASKS["equation"].questions(4, "test", 0, TASKS["equation"].hard)
    picked = {
        split: {q.question_id for q in pick(questions, split, "equation")}
        for split in ("train", "test", "in_domain", "hard")
    }
    assert len(picked["test"]) == 28 and picked["in_domain"] < picked["test"]
    assert len(picked["train"]) == len(picked["hard"]) == 4
    assert not picked["train"] & picked["test"] and not picked["hard"] & picked["test"]
    with pytest.raises(StudyError, match="exam"):
        pick(questions, "exam", "equation")


def test_solving_examples_have_known_tokens_and_no_loss_on_wrong_values():
    tokenizer = tiny.build_tokenizer()
    rng = random.Random(0)
    for _ in range(200):
        example = examples.solving(rng, 1.0)
        row = training.encode(example, tokenizer)
        assert tokenizer.unk_token_id not in row["input_ids"]
        with_loss = [t for t in row["labels"] if t != -100]
        assert tokenizer.decode(with_loss[:-1]).replace(" \n", "\n") and with_loss[-1] == tokenizer.eos_token_id
        for text, has_loss in example.target:
            assert has_loss or text.isdigit()


def test_a_drill_with_pairs_has_the_values_of_its_list_as_targets():
    tokenizer = tiny.build_tokenizer()
    rng = random.Random(0)
    for _ in range(200):
        example = examples.pairs(rng)
        listed = dict(pair.rsplit(" ", 1) for pair in example.messages[0]["content"].split(" , "))
        texts = [text for text, _ in example.target]
        assert dict(zip(texts[::2], texts[1::2], strict=True)) == listed
        row = training.encode(example, tokenizer)
        assert tokenizer.unk_token_id not in row["input_ids"]
        assert sum(label != -100 for label in row["labels"]) == len(listed) + 1  # the values and the end token


def test_reading_drills_use_only_words_of_their_prompt():
    tokenizer = tiny.build_tokenizer()
    rng = random.Random(0)
    for _ in range(100):
        for example in (examples.options(rng), examples.restated(rng), examples.reading(rng)):
            prompt_words = example.messages[0]["content"].split()
            texts = [text for text, _ in example.target]
            assert all(
                word in prompt_words or word in [*"=+-*/2:", "answer"] for text in texts for word in text.split()
            )
            assert tokenizer.unk_token_id not in training.encode(example, tokenizer)["input_ids"]
    example = examples.options(random.Random(1))
    prompt = example.messages[0]["content"]
    pieces = [text.split()[0] for text, _ in example.target]
    assert all(f"{n} ( {letter} )" in prompt for n, letter in zip(pieces[::2], pieces[1::2], strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_a_restated_formula_agrees_with_its_sentence(seed):
    example = examples.restated(random.Random(seed))
    sentences = {
        sentence.replace(" .", "").split()[0]: sentence for sentence in example.messages[0]["content"].split(" . ")
    }
    for (head, _), (formula, _) in zip(example.target[::2], example.target[1::2], strict=True):
        name, *rest = head.split()[0], *formula.split()
        sentence = sentences.get(name) or next(s for s in sentences.values() if f" {name} owns is " in s)
        assert all(word in sentence.split() or word in "+-*/2" for word in rest)
        sign = next((w for w in rest if w in "+-*/"), "")
        words = {
            "+": ("more", "extra", "together", "added"),
            "-": ("fewer", "less"),
            "*": ("times",),
            "/": ("half", "halved"),
        }
        assert not sign or any(word in sentence.split() for word in words[sign])


def test_revision_targets_are_the_solution_with_wrong_lines_marked():
    seen = set()
    for seed in range(60):
        example = examples.revising(random.Random(seed), KEYS, [GOLD, WRONG_STEP, WRONG_STEP, GOLD, WRONG_STEP])
        text = example.target[0][0]
        assert text.replace("fix ", "") == KEYS.solution
        seen.add((len(example.messages), "fix bob" in text))
    assert {(1, False), (1, True), (3, False), (3, True)} <= seen and len(ORDERS) == 2


@pytest.mark.parametrize("phase", build.PHASES)
def test_a_phase_contains_all_families(phase):
    assert set(phase.mixture) == set(TASKS) and sum(phase.mixture.values()) == pytest.approx(1)


def small_recipe(family: str) -> build.Recipe:
    return build.Recipe(
        family=family,
        hidden=32,
        layers=1,
        drill="pairs",
        drill_steps=4,
        steps=4,
        batch_size=4,
        learning_rate=1e-3,
        seed=0,
    )


def test_a_teacher_is_trained_in_phases(tmp_path, monkeypatch):
    shares = {"equation": 0.5, "word": 0.5}
    phases = tuple(build.Phase(shares, (0.7, 1.3), 0.5, questions=8, steps=2, learning_rate=1e-3) for _ in range(2))
    monkeypatch.setattr(build, "PHASES", phases)
    recipe, store = small_recipe("qwen3"), tmp_path / "store"
    with pytest.raises(StudyError, match="drill 'songs' is unknown"):
        build.train_drill(replace(recipe, drill="songs"))
    record = build.build_teacher(tmp_path / "teacher", recipe, store)
    assert record["tokens"] > 0 and record["weights"] == loading.load(tmp_path / "teacher")[0].num_parameters()
    with pytest.raises(StudyError, match="no readable training record"):
        build.adopt(tmp_path / "teacher", tmp_path / "copy")


def test_an_interrupted_teacher_training_resumes_from_its_last_phase(tmp_path, monkeypatch):
    recipe = small_recipe("gemma3")
    phase = build.Phase({"word": 1.0}, (0.7, 1.3), 0.5, questions=8, steps=2, learning_rate=1e-3)
    monkeypatch.setattr(build, "PHASES", (phase, phase))
    uninterrupted = build.build_teacher(tmp_path / "whole" / "teacher", recipe, tmp_path / "whole" / "store")
    store, started = tmp_path / "store", []
    own_samples = build.own_samples

    def interrupted(solver, *arguments):
        if started:
            raise KeyboardInterrupt
        started.append(solver)
        return own_samples(solver, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(build, "own_samples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build.build_teacher(tmp_path / "teacher", recipe, store)
    assert not (tmp_path / "teacher").exists()
    reads, read = [], training.Training.read
    monkeypatch.setattr(training.Training, "read", lambda *arguments: (reads.append(arguments), read(*arguments)))
    assert build.build_teacher(tmp_path / "teacher", recipe, store) == uninterrupted and len(reads) == 1
    assert digests(tmp_path, "teacher") == digests(tmp_path / "whole", "teacher") and not list(store.glob("phase-*"))
