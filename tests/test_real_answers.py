"""The answer checker on real model outputs with independent labels. It prints the counts: `pytest -s` shows them."""

import json
from collections.abc import Iterable

import pytest
from examples import shared_data

from agentark import StudyError
from agentark.answers import is_correct
from agentark.schemas import AnswerKind

# QwQ's outputs were truncated at a length limit. Where `</think>` is missing, the published prediction is a fallback
# that may match the answer by chance. These traces, by the id of their question, end without a decision, so is_correct
# counts them as wrong.
TRUNCATED = {
    "04adb80a-e020-4328-a871-e403f6d5861f": "takes D back: 'But I need to confirm. Alternatively, maybe the Coffin spring'",
    "14e05154-05a2-4472-a63e-261d765893ae": "weighs one syndrome when it is cut off; no option chosen",
    "58d83508-8ad5-4137-a215-d6b084f49e3c": "names CBCT without its letter, then 'Alternatively, if'",
    "7060bcf3-fde4-41e3-ad46-260857a92b46": "A only on a condition, then 'Alternatively, if the muscle is the temporalis'",
    "d8458f0b-fe46-465b-9f9d-85ff2379f6e1": "'maybe the correct answer is Leon Williams', then 'Let me confirm'",
    "f7d9f997-d9d6-40e0-a921-49bb343f8b52": "'might be B. Let me confirm', and is cut off at 'the correct answer should'",
}


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (shared_data() / name).open()]


def agreement(name: str, cases: Iterable[tuple[str, str, bool]], kind: AnswerKind) -> tuple[float, float]:
    """The share of (prediction, gold, label) in which is_correct agrees with the label, over all and as the mean over
    both labels. Also prints both."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for prediction, gold, label in cases:
        hits[label].append(is_correct(prediction, gold, kind) == label)
    agreed, total = sum(map(sum, hits.values())), sum(map(len, hits.values()))
    by_label = [sum(h) / len(h) for h in hits.values() if h]
    balanced = sum(by_label) / len(by_label)
    counts = ", ".join(f"labelled {label} {sum(h)} of {len(h)}" for label, h in hits.items())
    print(f"{name}: {agreed} of {total} = {agreed / total:.4f}, balanced {balanced:.4f} ({counts})")
    return agreed / total, balanced


def test_every_label_of_the_gsm8k_example_solutions_is_reproduced():
    systems = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    cases = [
        (row[system]["solution"], row["ground_truth"], row[system]["is_correct"])
        for row in lines("gsm8k/example_model_solutions.jsonl")
        for system in systems
    ]
    assert agreement("gsm8k/example_model_solutions", cases, "number")[0] == 1


def test_checker_agrees_with_a_reader_on_messages_of_real_debates():
    cases = [(row["text"], row["gold"], row["correct"]) for row in lines("gsm8k/debate_messages_labelled.jsonl")]
    assert agreement("gsm8k/debate_messages_labelled", cases, "number")[0] >= 0.98


def test_checker_agrees_with_the_labels_of_latex_pairs():
    rows = lines("math/latex_pairs.jsonl")
    cases = [(row["pred"], row["gold"], row["equal"]) for row in rows if "suspect" not in row]
    assert agreement("math/latex_pairs", cases, "latex")[1] >= 0.96
    suspect = [(row["pred"], row["gold"], row["equal"]) for row in rows if "suspect" in row]
    agreement("math/latex_pairs with a contested label", suspect, "latex")


def test_checker_agrees_with_human_labels_on_long_solutions():
    cases = [
        ("\n".join(row["solution_steps"]), row["gold"], row["human_correct"])
        for row in lines("math/qwq_outputs_labelled.jsonl")
    ]
    assert min(agreement("math/qwq_outputs_labelled", cases, "latex")) >= 0.95


def test_every_gold_answer_of_math_is_readable_and_its_solution_correct():
    rows = lines("math/math500.half.jsonl")
    cases = [(row["solution"], row["answer"], True) for row in rows]
    assert agreement("math/math500.half, solutions", cases, "latex")[0] >= 0.99
    unreadable = []
    for gold in [row["answer"] for row in rows] + [row["solution"] for row in lines("math/test.sample.jsonl")]:
        try:
            assert not is_correct("the answer is 271828182", gold)
        except StudyError:
            unreadable.append(gold)
    print(f"math: {len(unreadable)} gold answers not readable {unreadable}")
    assert not unreadable


def test_only_the_last_of_separate_boxes_is_the_answer():
    rows = lines("math/multi_boxed_golds.jsonl")
    cases = [(row["solution"], str(row["annotated_answer"]), True) for row in rows]
    agreement("math/multi_boxed_golds against the set that annotators made of them", cases, "latex")
    separate = "One root is $\\boxed{3}$. A long way of other reasoning leads to the next root, $\\boxed{4}$."
    assert is_correct(separate, "4")
    assert is_correct("$x$ is $\\boxed{3}$ or $\\boxed{4}$.", "3, 4")
    assert not is_correct("\\boxed{4}", "3, 4")


def test_checker_agrees_with_the_labels_of_letter_pairs():
    cases = [(row["pred"], row["gold"], row["equal"]) for row in lines("mcq/letter_pairs.jsonl")]
    assert agreement("mcq/letter_pairs", cases, "choice")[0] == 1


@pytest.mark.parametrize("model", ["gpt4o_cot", "qwq32b_zero_shot", "deepseek_r1_zero_shot"])
def test_choices_agree_with_the_published_ones_except_in_truncated_traces(model):
    rows = json.loads((shared_data() / "medmcqa" / "outputs" / f"{model}.json").read_text())
    texts = {row["realidx"]: row.get("raw_response") or row["completion"] for row in rows}
    published = {row["realidx"]: row["predicted_answer"] == row["answer_idx"] for row in rows}
    agreement(
        f"medmcqa/{model}", [(texts[r["realidx"]], r["answer_idx"], published[r["realidx"]]) for r in rows], "choice"
    )
    different = {
        row["realidx"]
        for row in rows
        if is_correct(texts[row["realidx"]], row["answer_idx"], "choice") != published[row["realidx"]]
    }
    assert different == (set(TRUNCATED) if model.startswith("qwq") else set())
    assert not any("</think>" in texts[key] for key in different)


def test_choices_agree_with_lighteval_except_on_lower_case_letters():
    rows = [row for row in lines("metrics/lighteval_cases.jsonl") if row["metric"] == "gpqa_instruct_metric"]
    different = [
        row["predictions"][0][-9:]
        for row in rows
        if is_correct(row["predictions"][0], "ABCD"[row["doc"]["gold_index"]], "choice")
        != bool(row["expected"]["extractive_match"])
    ]
    print(f"lighteval gpqa_instruct_metric: {len(rows) - len(different)} of {len(rows)}; other: {different}")
    assert different == ["Answer: c"]  # a lower-case letter is an answer here, but not in lighteval
