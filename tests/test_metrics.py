import csv
import json
import statistics
from collections import Counter
from pathlib import Path

import pytest
import torch
from examples import shared_data
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from agentark import StudyError
from agentark.evaluate.text_metrics import ROUGE, Score, bert_score, bleu, exact_match, international, rouge, token_f1

WORDS = "the cat sat on a mat dog ran .".split()
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
# Metrics of lighteval that are not in this module: they grade answers rather than texts (test_real_answers.py), or
# several samples
NOT_IMPLEMENTED = {
    "drop": "takes numbers and sets of spans apart before it compares",
    "pass_at_k": "of several samples",
    "pass_at_k_letters": "of several samples",
    "pass_at_k_math": "of several samples",
    "avg_at_k": "of several samples",
    "avg_at_k_math": "of several samples",
    "g_pass_at_k_math": "of several samples",
    "gpqa_instruct_metric": "a choice: agentark.answers",
}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (shared_data() / "metrics" / name).open()]


def test_rouge_agrees_with_the_test_cases_of_its_authors():
    cases = rows("rouge_scorer_cases.jsonl")
    for case in cases:
        score = rouge(case["prediction"], case["target"], case["use_stemmer"])[case["metric"]]
        assert score == pytest.approx((case["precision"], case["recall"], case["fmeasure"]), abs=1e-12)
    print(f"rouge_scorer_cases: {len(cases)} of {len(cases)}")


def test_rouge_agrees_with_rouge_score_on_real_summaries():
    cases = rows("rouge_score_0.1.2_on_qmsum.jsonl")
    for case in cases:
        for column, stemmer in (("nostem", False), ("stem", True)):
            scores = rouge(case["prediction"], case["target"], stemmer)
            for name, expected in case[column].items():
                assert [round(v, 6) for v in scores[name]] == expected
    print(f"rouge_score_0.1.2_on_qmsum: {len(cases)} summaries, with and without stemmer, to six decimals")


def test_rouge_of_a_published_system_is_reproduced():
    texts = ((shared_data() / "metrics" / f"qmsum_hmnet_{name}.txt").read_text() for name in ("preds", "refs"))
    lines = [text.replace(" . ", " .\0").splitlines() for text in texts]  # "\0" marks the end of a sentence
    scores = [rouge(*(text.replace("\0", "\n") for text in pair)) for pair in zip(*lines, strict=True)]
    means = {name: round(100 * statistics.mean(s[name].f1 for s in scores), 2) for name in ROUGE}
    print(f"qmsum_hmnet: {means} over {len(scores)} summaries")
    assert means == {"rouge1": 36.09, "rouge2": 11.37, "rougeL": 22.37, "rougeLsum": 31.28}


def test_token_f1_agrees_with_hotpotqas_rules_on_real_outputs():
    cases = rows("hotpot_f1_on_real_outputs.jsonl")
    for case in cases:
        score = token_f1(case["prediction"], case["gold"])
        assert [round(v, 6) for v in score] == [case["precision"], case["recall"], case["f1"]]
        assert exact_match(case["prediction"], case["gold"]) == case["em"]
    print(f"hotpot_f1_on_real_outputs: {len(cases)} of {len(cases)}, {sum(c['em'] for c in cases)} exact matches")


def test_metrics_agree_with_lightevals_cases_within_their_tolerances():
    checked: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for case in rows("lighteval_cases.jsonl"):
        metric, doc, prediction = case["metric"], case["doc"], case["predictions"][0]
        if metric in NOT_IMPLEMENTED:
            skipped[metric] += 1
            continue
        index = doc["gold_index"]
        golds = [doc["choices"][i] for i in ([index] if isinstance(index, int) else index)]
        if metric in ROUGE:
            value = max(rouge(prediction, gold, stemmer=False)[metric].f1 for gold in golds)
        elif metric == "f1_score":
            value = max(token_f1(prediction, gold).f1 for gold in golds)
        else:
            assert metric == "exact_match", metric
            value = float(any(exact_match(prediction, gold) for gold in golds))
        assert list(case["expected"].values()) == [pytest.approx(value, abs=case["tolerance"])], case["name"]
        checked[metric] += 1
    print(f"lighteval_cases: agreed {dict(checked)}; not ours {dict(skipped)}")


def test_token_f1_of_yes_is_zero_for_a_longer_answer():
    assert token_f1("yes, they were", "yes") == (0, 0, 0)
    assert token_f1("Yes.", "yes") == (1, 1, 1)


@given(SENTENCES, SENTENCES)
def test_swapping_the_texts_swaps_precision_and_recall(a, b):
    assert token_f1(a, b)[:2] == token_f1(b, a)[1::-1]
    for name, score in rouge(a, b).items():
        assert score[:2] == rouge(b, a)[name][1::-1]


@given(st.text(), st.text())
def test_every_metric_of_any_texts_is_between_0_and_1(a, b):
    for value in (*token_f1(a, b), *(v for score in rouge(a, b).values() for v in score), bleu(a, [b])):
        assert 0 <= value <= 1 + 1e-12


def test_bleu_of_short_texts_matches_a_calculation_by_hand():
    assert bleu("the cat sat on the mat", ["a dog", "the cat sat on the mat"]) == pytest.approx(1)
    # common n-grams: 6 of 7 words, 4 of 6 pairs, 2 of 5 triples, 1 of 4 quadruples
    by_hand = (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** (1 / 4)
    assert bleu("the cat sat on a mat.", ["the cat sat on the mat."]) == pytest.approx(by_hand)
    # no common triple or quadruple: they count as 1/2 and 1/4 of a match
    by_hand = (5 / 5 * 2 / 4 * (1 / 2) / 3 * (1 / 4) / 2) ** (1 / 4)
    assert bleu("b a d c e", ["a d b c e"]) == pytest.approx(by_hand)
    assert bleu("Nothing happens", ["Nothing happens"]) == 0
    with pytest.raises(StudyError, match="reference"):
        bleu("the cat", [])


def test_bleu_splits_punctuation_from_words_but_not_within_numbers():
    assert international("He paid $1,234.50, didn't he?") == "He paid $ 1,234.50 , didn ' t he ?".split()


def test_best_answers_of_truthfulqa_mostly_have_higher_bleu_with_correct_answers():
    with (shared_data() / "truthfulqa" / "TruthfulQA.sample.csv").open() as file:
        questions = list(csv.DictReader(file))
    higher = []
    for row in questions:
        others = [a for a in row["Correct Answers"].split("; ") if a != row["Best Answer"]]
        true, false = others or [row["Best Answer"]], row["Incorrect Answers"].split("; ")
        higher.append(bleu(row["Best Answer"], true) >= bleu(row["Best Answer"], false))
    print(f"TruthfulQA: the best answer has the higher BLEU with the correct ones in {sum(higher)} of {len(higher)}")
    assert statistics.mean(higher) > 0.5


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("roberta")
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(["the cat sat on a mat . the dog ran ."] * 9, vocab_size=290, special_tokens=special)
    bpe.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
    RobertaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=18, type_vocab_size=1, **sizes)
    RobertaModel(config).save_pretrained(folder)
    return folder


def expected_bert_score(model: torch.nn.Module, tokenizer, prediction: str, reference: str, layer: int) -> Score:
    """BERTScore by the paper's formulas: each token's highest cosine similarity, averaged without special tokens."""
    vectors = []
    for text in (prediction, reference):
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=16)
        with torch.no_grad():
            states = model.eval()(**ids, output_hidden_states=True).hidden_states[layer][0]
        vectors.append(torch.nn.functional.normalize(states, dim=-1))
    cosine = vectors[0] @ vectors[1].T
    weights = [torch.tensor([0.0] + [1.0] * (len(v) - 2) + [0.0]) for v in vectors]
    precision = (cosine.max(1).values @ weights[0] / weights[0].sum()).item()
    recall = (cosine.max(0).values @ weights[1] / weights[1].sum()).item()
    return Score(precision, recall, 2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("layer", [1, 3])
def test_bert_score_loads_a_checkpoint_and_matches_its_formulas(family, layer, request):
    folder = request.getfixturevalue(family)
    model = {"bert": BertModel, "roberta": RobertaModel}[family].from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    pairs = [("the cat sat", "a cat sat on the mat ."), ("the dog ran .", "the dog ran ."), ("dog " * 40, "the cat")]
    scores = bert_score(*zip(*pairs, strict=True), folder, layer)
    for (prediction, reference), score in zip(pairs, scores, strict=True):
        assert score == pytest.approx(expected_bert_score(model, tokenizer, prediction, reference, layer), abs=1e-5)
    assert scores[1] == pytest.approx((1, 1, 1), abs=1e-5)


def test_an_empty_text_has_a_bert_score_of_zero(bert):
    assert bert_score(["", "the cat", " "], ["the cat", "", " "], bert, 2) == [(0, 0, 0)] * 3
    assert bert_score([], [], bert, 2) == []


def test_bert_score_reports_invalid_inputs(bert, tmp_path):
    with pytest.raises(StudyError, match="2 predictions but 1 references"):
        bert_score(["a", "b"], ["a"], bert, 2)
    with pytest.raises(StudyError, match="does not load at layer 9"):
        bert_score(["a"], ["a"], bert, 9)
    with pytest.raises(StudyError, match="nothing-here does not load"):
        bert_score(["a"], ["a"], tmp_path / "nothing-here", 2)
