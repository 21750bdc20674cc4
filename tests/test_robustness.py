"""Perturbed questions stay exactly checkable and keep what they should; likelihoods agree with transformers' own."""

import math
import re

import checkpoints
import pandas as pd
import pytest
import torch
from examples import GOLD, KEYS, WRONG_STEP, trace_of

from agentark import StudyError, root
from agentark.evaluate import likelihood, robustness
from agentark.evaluate.likelihood import reasoning_nll
from agentark.evaluate.predictions import predict
from agentark.evaluate.robustness import HINTS, PERTURBATIONS, perturbed
from agentark.evaluate.scores import scores
from agentark.models import loading
from agentark.models.chat import prompt_ids
from agentark.report.sentences import likelihood_findings, robustness_findings
from agentark.schemas import frame
from agentark.tasks import TASKS
from agentark.tasks.world import perturb, words
from agentark.tasks.world.perturb import FAMILIES, read, sentences
from agentark.tasks.world.steps import check, lines_of
from agentark.tasks.world.words import VOCABULARY
from agentark.traces.reading import answer_of

QUESTIONS = {
    name: TASKS[name].questions(120, "train", 7, levels=(*TASKS[name].levels, *TASKS[name].hard)) for name in FAMILIES
}
PAIRS = [
    pytest.param([(q, p) for q in QUESTIONS[name] if (p := perturbed(q, how))], id=f"{name}-{how}")
    for name in FAMILIES
    for how in PERTURBATIONS
]


def pairs(how):
    return [(q, p) for some in QUESTIONS.values() for q in some if (p := perturbed(q, how))]


def graph(question):
    return {(q.name, q.value, tuple(q.ways)) for q in question.quantities}


def without_numbers(text):
    return re.sub(r"\d+", "#", text)


@pytest.mark.parametrize("name", FAMILIES)
def test_graph_parsed_from_the_text_is_the_one_it_was_generated_from(name):
    for question in QUESTIONS[name]:
        draft = read(question.text)
        quantities = TASKS[name].quantities(draft, question.solution)
        assert graph(question.model_copy(update={"quantities": quantities})) == graph(question)
        assert draft.answer == question.answer
        assert perturb.join_sentences(sentences(question.text)) == question.text


@pytest.mark.parametrize("pairs", PAIRS)
def test_every_line_of_the_gold_solution_of_a_perturbed_question_is_correct(pairs):
    assert len(pairs) > 40
    for question, other in pairs:
        assert all(step.right and step.grounded for step in check(other, other.solution))
        assert answer_of(other.solution, other) == other.answer
        assert len(lines_of(other.solution)) == len(lines_of(question.solution))
        assert set(f"{other.text} {other.solution}".split()) <= set(VOCABULARY)
        assert other.text != question.text and other.question_id == question.question_id


@pytest.mark.parametrize("pairs", PAIRS)
def test_wrong_answer_to_a_perturbed_question_is_detected(pairs):
    for _, other in pairs:
        *steps, _ = lines_of(other.solution)
        assert not check(other, "\n".join([*steps, f"answer : {int(other.answer) + 1}"]))[-1].right


def test_other_names_keep_numbers_and_order_of_the_text():
    for question, other in pairs("names"):
        numbers = [re.findall(r"\d+", q.text) for q in (question, other)]
        assert numbers[0] == numbers[1] and question.answer == other.answer
        exchanged = dict(zip(question.text.split(), other.text.split(), strict=True))
        assert len(set(exchanged.values())) == len(exchanged)
        renamed = [" ".join(exchanged.get(word, word) for word in q.name.split()) for q in question.quantities]
        assert set(renamed) == {q.name for q in other.quantities}
        names = {*words.PEOPLE, *words.ITEMS, *words.UNKNOWNS}
        assert not names & set(question.text.split()) & set(other.text.split())


def test_shuffled_order_keeps_every_sentence_and_the_graph():
    for question, other in pairs("order"):
        (*before, goal), (*after, other_goal) = sentences(question.text), sentences(other.text)
        assert sorted(before) == sorted(after) and before != after and goal == other_goal
        assert graph(question) == graph(other) and question.answer == other.answer


def test_distractor_adds_one_sentence_that_no_step_needs():
    for question, other in pairs("distractor"):
        original, extended = sentences(question.text), sentences(other.text)
        (added,) = [sentence for sentence in extended if sentence not in original]
        assert [s for s in extended if s != added] == original and extended[-1] == original[-1]
        assert added.split()[0] not in question.text.split()
        assert graph(question) == graph(other) and question.answer == other.answer


@pytest.mark.parametrize("name", FAMILIES)
def test_larger_numbers_exceed_those_of_training_and_factors_are_unchanged(name):
    linear = re.compile(r"(\d+) \* \w+ \+ (\d+) = (\d+)")

    def sizes(text):
        """(each number except factors minus the lower bound at its position, the factors)."""
        above, factors = [], []
        for sentence in sentences(text):
            if found := linear.fullmatch(sentence):
                k, c, d = map(int, found.groups())
                above += [(d - c) // k - min(perturb.UNKNOWN), c - min(perturb.CONSTANT)]
                factors.append(k)
                continue
            for form, least, _ in perturb.LARGER:
                above += [int(n) - least for n in re.findall(form, sentence)]
            factors += map(int, re.findall(r"(?:times|\*) (\d+)", sentence))
        return above, factors

    trained = [sizes(q.text) for q in TASKS[name].questions(800, "corpus", 7)]
    assert max(n for above, _ in trained for n in above) < 0
    for question in QUESTIONS[name]:
        if other := perturbed(question, "larger"):
            above, factors = sizes(other.text)
            assert above and min(above) >= 0 and factors == sizes(question.text)[1]
            assert without_numbers(other.text) == without_numbers(question.text)
            assert len(above) + len(factors) == len(re.findall(r"\d+", other.text))


def test_right_hint_is_correct_and_wrong_hint_is_wrong():
    for how in HINTS:
        for question, other in pairs(how):
            text, trace = other.text.split("\nagent 1\n")
            verdicts = check(question, trace.removesuffix("\nsummarise"))
            assert text == question.text and graph(other) == graph(question)
            assert verdicts[-1].right == all(step.right for step in verdicts) == (how == "right hint")


def test_impossible_perturbations_are_left_out_or_refused():
    equation = KEYS.model_copy(update={"text": "3 * k + 20 = 50 . find k ."})
    assert perturbed(equation, "order") is None
    assert read("a = 50 . b = a * 3 . find b .") is None
    with pytest.raises(StudyError, match="not a sentence of equation or word"):
        perturbed(TASKS["facts"].questions(1, "test", 0)[0], "names")
    with pytest.raises(StudyError, match="'typos' is unknown"):
        perturbed(equation, "typos")
    with pytest.raises(StudyError, match="cannot be derived"):
        read("b = a * 3 . find b .")


def test_settings_have_the_first_questions_that_allow_them():
    questions = QUESTIONS["equation"]
    by_setting = robustness.settings(questions, questions[:3], 20)
    assert set(by_setting) == {"unperturbed", *PERTURBATIONS, "more steps"} and len(by_setting["more steps"]) == 3
    assert all(len(by_setting[how]) == 20 for how in PERTURBATIONS)
    used = {q.question_id for how in PERTURBATIONS for q in by_setting[how]}
    assert [q for q in questions if q.question_id in used] == by_setting["unperturbed"]
    assert by_setting == robustness.settings(questions, questions[:3], 20)
    assert robustness.settings([KEYS.model_copy(update={"task": "gsm8k", "quantities": []})], [], 20) == {}


@pytest.mark.parametrize("family", ["generated", *checkpoints.FAMILIES])
def test_likelihood_matches_transformers_regardless_of_padding(family, tmp_path):
    folder = root() / "data/models/qwen3-small" if family == "generated" else checkpoints.build(family, tmp_path)
    questions = [
        *QUESTIONS["word"][:3],
        KEYS.model_copy(update={"task": "gsm8k", "quantities": [], "solution": "so 15 and 24"}),
    ]
    found = reasoning_nll(folder, questions)
    model, tokenizer = loading.load(folder)
    for question, row in zip(questions, found.itertuples(), strict=True):
        reasoning = question.solution.rpartition("\n")[0] or question.solution
        target = tokenizer(reasoning, add_special_tokens=False).input_ids
        prompt = prompt_ids(tokenizer, [{"role": "user", "content": question.text}], 2048)
        ids = torch.tensor([prompt + target])
        labels = torch.tensor([[-100] * len(prompt) + target])
        with torch.inference_mode():
            mean = model.to("cpu").eval()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        assert row.tokens == len(target)
        assert row.nll / row.tokens == pytest.approx(float(mean), abs=1e-3)


def test_too_long_or_missing_gold_solutions_are_refused():
    long = KEYS.model_copy(update={"solution": "bob = 12 + 3 = 15\n" * 500 + "answer : 39"})
    with pytest.raises(StudyError, match="tokens, but the model's window"):
        reasoning_nll(root() / "data/models/qwen3-small", [long])
    with pytest.raises(StudyError, match="no test question has a gold solution"):
        reasoning_nll(root() / "data/models/qwen3-small", [])


def likelihoods():
    """Two questions of 10 and 30 tokens; a method with two seeds that halves the base's NLL on average."""
    rows = []
    for method, seed, nll in (("base", 0, (2.0, 6.0)), ("da", 0, (1.5, 3.5)), ("da", 1, (0.5, 2.5))):
        for i, value in enumerate(nll):
            rows.append(dict(question_id=f"q{i}", nll=value, tokens=(10, 30)[i], student="s", method=method, seed=seed))
    return pd.DataFrame(rows)


def test_perplexity_is_the_exponential_of_the_mean_nll_over_tokens_and_seeds():
    found = frame(likelihood.likelihood_scores(likelihoods(), "t", "word"))
    value = found.set_index(["method", "metric", "seed"])["value"]
    assert value["base", "nll", "all"] == pytest.approx(8 / 40)
    assert value["da", "nll", "all"] == pytest.approx(4 / 40) and value["da", "nll", "1"] == pytest.approx(3 / 40)
    assert value["da", "perplexity", "all"] == pytest.approx(math.exp(0.1))
    assert value["da", "nll_difference", "all"] == pytest.approx(-0.1)
    assert "DA: likelihood not detectably different, -0.100" in likelihood_findings(found, "s")


def test_losses_of_accuracy_are_paired_by_question():
    """Half of 20 questions are perturbed. Of these, 8 of 10 are correct unperturbed and 2 of 10 with larger numbers."""
    correct_by_setting = {"unperturbed": range(18), "larger": (10, 11), "right hint": range(10, 15), "wrong hint": ()}
    questions = [KEYS.model_copy(update={"question_id": f"q{i:02d}"}) for i in range(20)]
    predictions = []
    for setting, correct in correct_by_setting.items():
        for i, question in enumerate(questions):
            if setting == "unperturbed" or i >= 10:
                trace = trace_of(1, 1, GOLD if i in correct else WRONG_STEP, question.question_id)
                predictions += predict([trace], [question], setting, "da", "s")
    found = frame(scores(frame(predictions), "reasoning", "t", "word", robustness.baselines_of))
    assert set(found["study"]) == {"reasoning"}
    gains = found[found["metric"] == "accuracy_gain"].set_index(["setting", "baseline_variant"])
    assert gains.loc[("larger", "unperturbed"), "value"] == pytest.approx(-0.6)
    assert gains.loc[("larger", "unperturbed"), "n"] == 10
    assert gains.loc[("wrong hint", "right hint"), "value"] == pytest.approx(-0.5)
    (sentence,) = robustness_findings(found, "s")
    assert "falls against the unperturbed questions in larger, wrong hint, most in wrong hint (-0.800" in sentence
    assert "Wrong hint vs. right hint: -0.500" in sentence and "(worse)" in sentence
