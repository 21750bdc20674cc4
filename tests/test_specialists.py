"""The family `clinic`, its specialists, and the findings about a debate and its controls."""

import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_study import copy_of_project, stage

from agentark import StudyError
from agentark.pretrain import specialists, tiny
from agentark.pretrain.build import Recipe
from agentark.report import controlled
from agentark.schemas import Score, frame, read_scores
from agentark.tasks.world.clinic import PRACTICE, STUDY, Clinic, consistent
from agentark.tasks.world.steps import check, claim_of, lines_of
from agentark.tasks.world.words import ATTRIBUTES, CLINIC_VOCABULARY, VOCABULARY

CLINIC = Clinic()
QUESTIONS = {
    split: CLINIC.questions(n, split, 0) for split, n in (("train", 1350), ("validation", 130), ("test", 1010))
}


def test_no_pair_of_drug_and_attribute_is_in_two_splits():
    contents = [{q.content for q in questions} for questions in QUESTIONS.values()]
    assert len(set.union(*contents)) == sum(map(len, contents)) == 2490


def test_most_drugs_of_test_questions_occur_in_training_with_another_attribute():
    trained = {q.content.split()[0] for q in QUESTIONS["train"]}
    share = sum(q.content.split()[0] in trained for q in QUESTIONS["test"]) / len(QUESTIONS["test"])
    assert 0.9 < share < 1


@pytest.mark.parametrize("split", QUESTIONS)
def test_every_step_of_a_solution_is_correct_and_no_question_states_a_fact(split):
    for question in QUESTIONS[split]:
        steps = check(question, question.solution)
        assert [step.right for step in steps] == [True] * 3
        assert not {step.value for step in steps} & set(question.text.split())


def test_facts_for_practice_and_for_the_study_share_no_drug_and_no_illness():
    assert not set(PRACTICE.cures) & set(STUDY.cures) and not set(PRACTICE.illnesses) & set(STUDY.illnesses)


def test_tokenizer_has_one_token_per_word_and_keeps_the_ids_of_the_study():
    tokenizer, own = tiny.build_tokenizer(CLINIC_VOCABULARY), tiny.build_tokenizer()
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert all(tokenizer.get_vocab()[word] == own.get_vocab()[word] for word in VOCABULARY)
    for questions in QUESTIONS.values():
        for question in questions:
            for text in (question.text, question.solution):
                assert len(tokenizer(text).input_ids) == len(text.replace("\n", " \n ").split(" "))


def claims(text: str) -> list[tuple[str, str]]:
    return [claim_of(line) for line in lines_of(text)]


def facts_of(text: str) -> tuple[str, str, str, str]:
    """Drug, illness, attribute and value that a trace states."""
    (first, illness), (second, value), (_, answer) = claims(text)
    assert second.split()[1] == illness and answer == value
    return first.split()[1], illness, second.split()[0], value


@given(st.integers(), st.sampled_from(specialists.ROLES))
def test_specialist_recalls_only_its_own_facts(seed, role):
    example = specialists.recall(random.Random(seed), role)
    drug, illness, attribute, value = facts_of(example.target[0][0])
    facts = STUDY if drug in STUDY.cures else PRACTICE
    if role == "drugs":
        assert facts.cures[drug] == illness and value in ATTRIBUTES[attribute]
    else:
        assert facts.values[attribute, illness] == value and consistent(example.target[0][0], facts)


@pytest.mark.parametrize("role", specialists.ROLES)
def test_specialist_guesses_the_other_fact_at_chance_level(role):
    rng, right = random.Random(0), 0
    for _ in range(3000):
        drug, _, attribute, value = facts_of(specialists.recall(rng, role).target[0][0])
        facts = STUDY if drug in STUDY.cures else PRACTICE
        right += facts.values[attribute, facts.cures[drug]] == value
    assert 0.02 < right / 3000 < 0.09  # a random value is correct in 1 of 24 cases


@given(st.integers(), st.sampled_from(specialists.ROLES))
def test_revision_copies_the_other_specialists_fact_and_recalls_its_own(seed, role):
    example = specialists.revision(random.Random(seed), role)
    prompt, text = example.messages[-1]["content"], example.target[0][0]
    drug, illness, attribute, value = facts_of(text)
    facts = STUDY if drug in STUDY.cures else PRACTICE
    assert f"illness {drug} = {illness}" in prompt
    if role == "drugs":
        assert illness == facts.cures[drug]
        assert f"{attribute} {illness} = {value}" in prompt
    else:
        assert value == facts.values[attribute, illness]


@pytest.mark.parametrize("role", specialists.ROLES)
def test_fact_copied_by_a_revision_is_correct_only_at_chance_level(role):
    """Revisions must not train a specialist on the other one's facts."""
    rng, right = random.Random(0), 0
    for _ in range(3000):
        drug, illness, attribute, value = facts_of(specialists.revision(rng, role).target[0][0])
        facts = STUDY if drug in STUDY.cures else PRACTICE
        correct = facts.cures[drug] == illness if role == "illnesses" else facts.values[attribute, illness] == value
        right += correct
    assert right / 3000 < 0.07  # of 24 values, of 50 illnesses


def test_novice_trains_only_on_solutions_about_practice_facts():
    for seed in range(100):
        drug, illness, attribute, value = facts_of(specialists.solved(random.Random(seed)).target[0][0])
        assert PRACTICE.cures[drug] == illness and PRACTICE.values[attribute, illness] == value


def test_an_unknown_role_is_refused(tmp_path):
    recipe = Recipe("qwen3", 8, 1, "pairs", 1, 1, 2, 0.001, 0)
    with pytest.raises(StudyError, match=r"role 'nurse' is unknown; choose one of drugs, illnesses, novice"):
        specialists.build(tmp_path / "nurse", "nurse", recipe)


def test_trace_is_consistent_if_its_attribute_is_true_of_the_illness_it_names():
    attribute, illness = next(iter(STUDY.values))
    value = STUDY.values[attribute, illness]
    other = next(v for v in ATTRIBUTES[attribute] if v != value)
    drug = next(iter(STUDY.cures))
    assert consistent(f"illness {drug} = {illness}\n{attribute} {illness} = {value}\nanswer : {value}", STUDY)
    assert not consistent(f"illness {drug} = {illness}\n{attribute} {illness} = {other}\nanswer : {other}", STUDY)
    assert not consistent("", STUDY) and not consistent("answer : oslo", STUDY)


# Findings about a debate


def row(method: str, value: float, variant: str = "", baseline: str = "", **fields) -> Score:
    return Score(
        study="specialists", setting="test", variant=variant, teacher="a and b", method=method, test_task="clinic",
        baseline=baseline, seed="all", value=value, n=1000, tokens_per_question=10.0,
        **{"student": "", "train_task": "", "baseline_variant": "", "lo": value - 0.02, "hi": value + 0.02,
           "metric": "accuracy_gain" if baseline else "accuracy", "calls_per_question": 2.0} | fields,
    )  # fmt: skip


def teachers(debate: float, relay: float, off: float, greedy: float) -> pd.DataFrame:
    values = [("relay", "", relay), ("debate_off", "", off), ("greedy", "drugs", greedy), ("greedy", "illnesses", 0.01)]
    rows = [row(method, value, variant) for method, variant, value in values]
    gains = [row("debate", debate - v, baseline=m, baseline_variant=variant) for m, variant, v in values]
    return frame([row("debate", debate, calls_per_question=13.0), *rows, *gains])


@pytest.mark.parametrize(
    ("values", "control", "outcome", "relay"),
    [
        ((0.9, 0.8, 0.1, 0.2), "greedy decoding of drugs, with 0.200", "What the agents tell each other helps.",
         "better"),
        ((0.2, 0.8, 0.9, 0.3), "communication, with 0.900", "What the agents tell each other does harm.", "worse"),
        ((0.5, 0.5, 0.49, 0.3), "communication, with 0.490", "No use of what the agents tell each other is detected.",
         "no difference detected"),
    ],
)  # fmt: skip
def test_sentences_about_a_debate_follow_the_results(values, control, outcome, relay):
    first, second = controlled.debate_findings(teachers(*values))
    assert control in first and first.endswith(outcome)
    assert second.endswith(f"({relay}).")


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, "better"), (-0.3, "worse"), (0.01, "no difference detected")])
def test_sentences_about_a_student_follow_the_results(gain, verdict):
    where = dict(student="novice", train_task="clinic", variant="debate, verified")
    table = frame(
        [
            row("rsft", 0.5, **where),
            row("rsft", gain, baseline="rsft", baseline_variant="vote, verified", **where),
            row("rsft", gain, baseline="greedy", baseline_variant="drugs", **where),
        ]
    )
    sentence = controlled.student_findings(table, "novice")
    assert sentence.count(f"({verdict})") == 2
    assert "R-SFT on majority vote (verified)" in sentence and "greedy decoding of drugs" in sentence


def test_notebooks_run_from_models_to_findings(tmp_path):
    folder = copy_of_project(tmp_path)
    out = "data/specialists-try/novice"
    stage(folder, "specialists/models", "role=novice", "steps=2", "drill_steps=2", "examined=8", f"out={out}")
    assert (folder / out / "training.json").is_file()
    stage(
        folder, "specialists/study", "learners=[novice]", "seeds=[0]", "train=24", "test=16", "training.steps=2",
        "out=reports/try.csv", "out_figures=reports/figures-try",
    )  # fmt: skip
    table = read_scores(folder / "reports" / "try.csv")
    methods = {"debate", "relay", "greedy", "self_revision", "vote", "vote_tokens", "debate_off", "debate_other"}
    assert methods <= set(table["method"])
    students = table[table["student"] != ""]
    assert set(students["source"]) == {"", "answers", "debate", "debate_off", "vote", "greedy"}
    assert len(controlled.findings(table)) == 4
    assert {p.name for p in (folder / "reports" / "figures-try").iterdir()} == {
        "specialists.png",
        "specialists-students.png",
    }
