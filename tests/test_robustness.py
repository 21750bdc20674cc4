"""Questions put another way stay exactly checkable, and keep what is to stay; likelihoods agree with transformers' own."""

import math
import re

import checkpoints
import pandas as pd
import pytest
import torch
from examples import GOLD, KEYS, SLIPPED, said

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


def shape(text):
    return re.sub(r"\d+", "#", text)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_read_off_the_words_is_the_one_they_were_drawn_from(name):
    for question in QUESTIONS[name]:
        draft = read(question.text)
        told = TASKS[name].quantities(draft, question.solution)
        assert graph(question.model_copy(update={"quantities": told})) == graph(question)
        assert draft.answer == question.answer
        assert perturb.joined(sentences(question.text)) == question.text


@pytest.mark.parametrize("pairs", PAIRS)
def test_every_gold_solution_of_a_perturbed_question_is_right_line_by_line(pairs):
    assert len(pairs) > 40
    for question, other in pairs:
        assert all(step.right and step.grounded for step in check(other, other.solution))
        assert answer_of(other.solution, other) == other.answer
        assert len(lines_of(other.solution)) == len(lines_of(question.solution))
        assert set(f"{other.text} {other.solution}".split()) <= set(VOCABULARY)
        assert other.text != question.text and other.question_id == question.question_id


@pytest.mark.parametrize("pairs", PAIRS)
def test_a_wrong_answer_to_a_perturbed_question_is_caught(pairs):
    for _, other in pairs:
        *steps, _ = lines_of(other.solution)
        assert not check(other, "\n".join([*steps, f"answer : {int(other.answer) + 1}"]))[-1].right


def test_other_names_keep_numbers_and_order():
    for question, other in pairs("names"):
        numbers = [re.findall(r"\d+", q.text) for q in (question, other)]
        assert numbers[0] == numbers[1] and question.answer == other.answer
        exchanged = dict(zip(question.text.split(), other.text.split(), strict=True))
        assert len(set(exchanged.values())) == len(exchanged)
        told = [" ".join(exchanged.get(word, word) for word in q.name.split()) for q in question.quantities]
        assert set(told) == {q.name for q in other.quantities}
        names = {*words.PEOPLE, *words.ITEMS, *words.UNKNOWNS}
        assert not names & set(question.text.split()) & set(other.text.split())


def test_another_order_keeps_every_sentence_and_the_graph():
    for question, other in pairs("order"):
        (*before, asks), (*after, last) = sentences(question.text), sentences(other.text)
        assert sorted(before) == sorted(after) and before != after and asks == last
        assert graph(question) == graph(other) and question.answer == other.answer


def test_a_distractor_adds_one_sentence_that_nothing_needs():
    for question, other in pairs("distractor"):
        told, more = sentences(question.text), sentences(other.text)
        (idle,) = [sentence for sentence in more if sentence not in told]
        assert [s for s in more if s != idle] == told and more[-1] == told[-1]
        assert idle.split()[0] not in question.text.split()
        assert graph(question) == graph(other) and question.answer == other.answer


@pytest.mark.parametrize("name", FAMILIES)
def test_larger_numbers_are_larger_than_any_in_training_and_factors_stay(name):
    linear = re.compile(r"(\d+) \* \w+ \+ (\d+) = (\d+)")

    def sizes(text):
        """(how much above the bound of its place each number but a factor stands, the factors)."""
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
            assert shape(other.text) == shape(question.text)
            assert len(above) + len(factors) == len(re.findall(r"\d+", other.text))


def test_a_hint_is_right_or_wrong_as_it_says():
    for how in HINTS:
        for question, other in pairs(how):
            told, trace = other.text.split("\nagent 1\n")
            verdicts = check(question, trace.removesuffix("\nsummarise"))
            assert told == question.text and graph(other) == graph(question)
            assert verdicts[-1].right == all(step.right for step in verdicts) == (how == "right hint")


def test_what_a_question_does_not_allow_is_left_out():
    alone = KEYS.model_copy(update={"text": "3 * k + 20 = 50 . find k ."})
    assert perturbed(alone, "order") is None
    assert read("a = 50 . b = a * 3 . find b .") is None
    with pytest.raises(StudyError, match="not a sentence of equation or word"):
        perturbed(TASKS["facts"].questions(1, "test", 0)[0], "names")
    with pytest.raises(StudyError, match="'typos' is unknown"):
        perturbed(alone, "typos")
    with pytest.raises(StudyError, match="cannot be derived"):
        read("b = a * 3 . find b .")


def test_settings_hold_the_first_questions_that_allow_them():
    questions = QUESTIONS["equation"]
    asked = robustness.settings(questions, questions[:3], 20)
    assert set(asked) == {"unperturbed", *PERTURBATIONS, "more steps"} and len(asked["more steps"]) == 3
    assert all(len(asked[how]) == 20 for how in PERTURBATIONS)
    used = {q.question_id for how in PERTURBATIONS for q in asked[how]}
    assert [q for q in questions if q.question_id in used] == asked["unperturbed"]
    assert asked == robustness.settings(questions, questions[:3], 20)
    assert robustness.settings([KEYS.model_copy(update={"task": "gsm8k", "quantities": []})], [], 20) == {}


@pytest.mark.parametrize("family", ["generated", *checkpoints.FAMILIES])
def test_likelihood_is_that_of_transformers_whatever_the_padding(family, tmp_path):
    folder = root() / "data/models/qwen3-small" if family == "generated" else checkpoints.build(family, tmp_path)
    questions = [
        *QUESTIONS["word"][:3],
        KEYS.model_copy(update={"task": "gsm8k", "quantities": [], "solution": "so 15 and 24"}),
    ]
    found = reasoning_nll(folder, questions)
    model, tokenizer = loading.load(folder)
    for question, row in zip(questions, found.itertuples(), strict=True):
        told = question.solution.rpartition("\n")[0] or question.solution
        target = tokenizer(told, add_special_tokens=False).input_ids
        prompt = prompt_ids(tokenizer, [{"role": "user", "content": question.text}], 2048)
        ids = torch.tensor([prompt + target])
        labels = torch.tensor([[-100] * len(prompt) + target])
        with torch.inference_mode():
            mean = model.to("cpu").eval()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        assert row.tokens == len(target)
        assert row.nll / row.tokens == pytest.approx(float(mean), abs=1e-3)


def test_what_does_not_fit_or_is_not_there_is_said():
    long = KEYS.model_copy(update={"solution": "bob = 12 + 3 = 15\n" * 500 + "answer : 39"})
    with pytest.raises(StudyError, match="tokens, but the model's window"):
        reasoning_nll(root() / "data/models/qwen3-small", [long])
    with pytest.raises(StudyError, match="no test question has a gold solution"):
        reasoning_nll(root() / "data/models/qwen3-small", [])


def likelihoods():
    """Two questions of 10 and 30 tokens; a method of two seeds that halves the base's NLL on average."""
    rows = []
    for method, seed, nll in (("base", 0, (2.0, 6.0)), ("da", 0, (1.5, 3.5)), ("da", 1, (0.5, 2.5))):
        for i, value in enumerate(nll):
            rows.append(dict(question_id=f"q{i}", nll=value, tokens=(10, 30)[i], student="s", method=method, seed=seed))
    return pd.DataFrame(rows)


def test_perplexity_is_the_exponential_of_the_mean_over_tokens_and_seeds():
    found = frame(likelihood.likelihood_scores(likelihoods(), "t", "word"))
    value = found.set_index(["method", "metric", "seed"])["value"]
    assert value["base", "nll", "all"] == pytest.approx(8 / 40)
    assert value["da", "nll", "all"] == pytest.approx(4 / 40) and value["da", "nll", "1"] == pytest.approx(3 / 40)
    assert value["da", "perplexity", "all"] == pytest.approx(math.exp(0.1))
    assert value["da", "nll_difference", "all"] == pytest.approx(-0.1)
    assert "DA: likelihood not detectably different, -0.100" in likelihood_findings(found, "s")


def test_losses_are_paired_with_the_same_questions():
    """Half of 20 questions are perturbed: of those 8 of 10 are right unperturbed, 2 of 10 with larger numbers."""
    right = {"unperturbed": range(18), "larger": (10, 11), "right hint": range(10, 15), "wrong hint": ()}
    asked = [KEYS.model_copy(update={"question_id": f"q{i:02d}"}) for i in range(20)]
    predictions = []
    for setting, known in right.items():
        for i, question in enumerate(asked):
            if setting == "unperturbed" or i >= 10:
                trace = said(1, 1, GOLD if i in known else SLIPPED, question.question_id)
                predictions += predict([trace], [question], setting, "da", "s")
    found = frame(scores(frame(predictions), "reasoning", "t", "word", robustness.against))
    assert set(found["study"]) == {"reasoning"}
    gains = found[found["metric"] == "accuracy_gain"].set_index(["setting", "baseline_variant"])
    assert gains.loc[("larger", "unperturbed"), "value"] == pytest.approx(-0.6)
    assert gains.loc[("larger", "unperturbed"), "n"] == 10
    assert gains.loc[("wrong hint", "right hint"), "value"] == pytest.approx(-0.5)
    (sentence,) = robustness_findings(found, "s")
    assert "falls against the unperturbed questions in larger, wrong hint, most in wrong hint (-0.800" in sentence
    assert "Wrong hint vs. right hint: -0.500" in sentence and "(worse)" in sentence
