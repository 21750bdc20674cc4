"""Answer extraction and grading as in the pipeline: first the answer that a reply states, then the verdict on it."""

import time

import pytest
from examples import KEYS
from hypothesis import given
from hypothesis import strategies as st
from test_equal_answers import question_of

from agentark.answers import is_correct, is_right, same, stated_answer
from agentark.traces.reading import answer_of, groups

FORMULAS = [r"2\sqrt{3}", r"\frac{1}{2}", "[1,2)", "3/8", "x+1", "7", r"\pi r^2"]
FRAMES = [
    "Therefore the side is ${}$", "The final answer is ${}$ cm", "**Answer: ${}$**", "The interval is ${}$",
    "The answer is **${}$**.", "**Answer: ${}$**", "Answer: `${}$`", "**The answer is ${}$.**", "The answer is $${}$$",
    "Answer: *${}$*", r"\boxed{{{}}}<|im_end|>", "**Final Answer:** __${}$__", "So it is **${}$**.",
]  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_in_any_frame_is_extracted_completely(formula, frame):
    question, text = question_of("latex", formula), frame.format(formula)
    assert is_right(text, question) and is_right(answer_of(text, question), question)


RIGHT = {
    "latex": [
        ("The answer is **3/8**.", "3/8"), ("**Answer: 3/8**", "3/8"), ("Answer: `3/8`", "3/8"),
        ("The side is **3/8**.", "3/8"), ("Answer: $x=2$ or $x=3$", "2, 3"),
        ("The answer is $18$. Let me verify: 9*2 = 18.", "18"),
    ],
    "text": [
        ("Answer: Rome\nExplanation: It is the capital.", "Rome"), ("Answer: Rome (Italy)", "Rome"),
        ("Answer: Rome (Italy)", "Rome (Italy)"), ("Answer: Yes, because it is so.", "Yes"), ("Yes, it is.", "yes"),
        ("Answer: No. It is not so.", "no"), (r"\boxed{\text{Rome}}", "Rome"), ("Answer: Rome<|im_end|>", "Rome"),
        ("Answer: **Rome**\nThis is because it is the capital.", "Rome"), ("Answer: Rome, because it is.", "Rome"),
        ("**Answer:** Rome\nConfidence: 90%", "Rome"), (r"The capital is \boxed{\text{Rome}}.", "Rome"),
        ("Answer: No Country for Old Men", "No Country for Old Men"), ("The answer is Rome.</s>", "Rome"),
    ],
    "number": [
        ("I agree with Agents 1 and 3. The total is 18.", "18"), ("I agree with Agent 2 that it is 18.", "18"),
        ("It is 18, as Agent 3 says.", "18"), ("As Agent #3 said, 18 apples.", "18"),
        ("It doubled (so 3*2=6 inches), then grew. Therefore, the total height of it is 13 inches.", "13"),
        ("It is $10 + 5 + 9 = 24$. Dividing 24 by 4 gives 6, so each person would have 6 guns.", "6"),
        ("Converting this to pints (since 1 gallon = 12 pints) gives us 9 pints.", "9"),
        ("50 * 15 = 750 cents, which is $7.50.", "7.5"), ("6 + 6 = 12, which is 5 more than 7.", "12"),
        (r"Agent 1 says \boxed{45}, while Agent 2 says \boxed{45.00}.", "45"),
        (r"\boxed{1,000} and \boxed{1000}", "1000"),
        ("There are 260 sheep in the 3 cities.", "260"), ("She will have 600 dollars after 3 years.", "600"),
        ("She needs 12 eggs for the 3 cakes.", "12"), ("There were 90 birds on the 4 trees.", "90"),
        ("The answer is 18. Let me double check: 9*2 = 18.", "18"), ("#### 18\nLet me verify this: 9 + 9 = 18.", "18"),
        ("The answer is 18. My previous answer was 20.", "18"), ("The answer is 18, my initial answer was 20.", "18"),
        ("My previous answer was 20. The correct answer is 18.", "18"), ("My previous answer was 18.", "18"),
        ("The answer is one half.", "0.5"), ("The answer is three quarters.", "0.75"), ("The answer is a half.", "0.5"),
        ("The answer is two and three quarters cups.", "2.75"), ("The answer is two thirds of the cake.", "2/3"),
        ("The answer is negative one half.", "-0.5"), ("_18_", "18"), ("The answer is __18__.", "18"), ("*18*", "18"),
        (r"\boxed{3:2}", "1.5"), ("The ratio is 3:2.", "6:4"), ("18<|im_end|>\n<|im_start|>user\nAnd 19?", "18"),
    ],
    "choice": [
        (r"\boxed{\mathrm{B}}", "B"), (r"\boxed{\mathbf{B}}", "B"), (r"$\mathbf{B}$", "B"), ("It's B", "B"),
        ("I think it's B.", "B"), ("It's (B) because it fits.", "B"), ("The answer is not A but B.", "B"),
        ("The correct option is not (A), but (B).", "B"), ("Letter: B", "B"), ("The letter is B.", "B"),
        ("A) cat\nB) cow\nC) duck\n\nB) cow", "B"), ("A: cat\nB: cow\nC: duck\nAnswer: C", "C"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "gold"), [(kind, *row) for kind, rows in RIGHT.items() for row in rows])
def test_an_answer_is_right_in_the_reply_and_after_extraction(kind, text, gold):
    question = question_of(kind, gold)
    assert is_right(text, question) and is_right(answer_of(text, question), question)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("number", "I agree with Agent 2."), ("number", "Agent 2's solution is correct."),
        ("latex", "Agent 2 is right."),
        ("number", "I agree with agents 1, 2 and 3."), ("number", "The answer is 18. Let me double check: 9*3 = 27."),
        ("number", "The answer is 18. Let me check: 20 - 2 = 18. Wait, no."), ("choice", "A) cat\nB) cow\nC) duck"),
        ("choice", "Options:\nA. cat\nB. cow"), ("choice", "It's a cat"), ("choice", "It's not B"),
        ("number", "The answer is twenty-third"),
    ],
)  # fmt: skip
def test_no_answer_is_extracted_from_a_reply_without_one(kind, text):
    assert stated_answer(text, kind) is None


def test_an_answer_in_a_sentence_is_grouped_with_the_bare_answer():
    assert groups(["rome", "The answer is rome.", "So the answer is Rome", "Oslo"], question_of("text", "Rome")) == [
        ["rome", "The answer is rome.", "So the answer is Rome"],
        ["Oslo"],
    ]
    assert not same("The answer is Rome.", "Oslo", "text") and not same("Answer: Yes, it is.", "No, it is not.", "text")


def test_a_text_list_is_extracted_completely_and_a_generated_answer_by_line():
    assert stated_answer("Answer: - red\n- blue", "text") == "- red\n- blue"
    assert answer_of("answer : 7\nfix 8", KEYS) == "7"


@pytest.mark.parametrize(
    "piece", ["Agent 1, ", "A. is 1 ", "(since 1 = ", "` ", "** ", "_ ", "Yes, (", "made 1 a in ", "old answer was 1 "]
)
@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_extraction_takes_linear_time(piece, kind):
    start = time.process_time()
    for text in ((piece * 8_000)[:8_000], f"Answer: {(piece * 500)[:500]} 1. Let me check: {(piece * 7_000)[:7_000]}"):
        stated_answer(text, kind)
    assert time.process_time() - start < 2


@given(
    st.integers(-999, 99_999),
    st.integers(1, 9),
    st.sampled_from(["", "The total is {}.", "Answer: **{}**", "It is {}"]),
)
def test_an_agent_number_in_the_reply_does_not_change_the_answer(number, agent, frame):
    text = frame.format(number) or str(number)
    for reply in (f"I agree with Agent {agent}. {text}", f"Agent {agent}'s solution is right.\n{text}"):
        assert is_correct(stated_answer(reply, "number"), str(number), "number")


@given(st.sampled_from(["Rome", "Saint Helena", "Yes", "No Doubt"]), st.text("abc .,()\n", max_size=40))
def test_text_on_the_line_after_a_text_answer_is_ignored(answer, line):
    assert stated_answer(f"Answer: {answer}\n{line}", "text") == answer
