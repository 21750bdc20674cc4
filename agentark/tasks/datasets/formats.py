"""Parsers of published rows, one per data set, for both the original files and the hub's form.

Each takes a row (columns by name) and returns the fields of a Question that the row determines. Each raises StudyError
that names the column if the row is incomplete.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from agentark import StudyError
from agentark.answers import is_correct
from agentark.answers.correct import words
from agentark.tasks.datasets.content import content_about, content_of
from agentark.tasks.datasets.rows import Raw

Fields = dict[str, Any]
LETTERS = "ABCD"
PLAIN_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)")


def column(row: dict, *names: str) -> Any:
    """The first of the named columns that the row has. Raises StudyError if it has none."""
    for name in names:
        if name in row:
            return row[name]
    raise StudyError(f"column {' or '.join(names)} is missing")


def text_in(row: dict, *names: str) -> str:
    """A column's text, stripped. Raises StudyError if it is missing, empty or not text."""
    value = column(row, *names)
    if value is None or value == "":
        raise StudyError(f"column {' or '.join(names)} is empty")
    if not isinstance(value, str):
        raise StudyError(f"column {' or '.join(names)} holds a {type(value).__name__}, not text")
    if not value.strip():
        raise StudyError(f"column {' or '.join(names)} is empty")
    return value.strip()


def texts_in(row: dict, *names: str) -> list[str]:
    """A column's non-empty texts, stripped, from a list or from a text with ";" between them."""
    value = column(row, *names)
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise StudyError(f"column {' or '.join(names)} holds no texts")
    return [part.strip() for part in parts if part.strip()]


def records_in(row: dict, *names: str) -> list[dict]:
    """A column's records, from a list of records or, as on the hub, from one record of equally long lists."""
    value = column(row, *names)
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        if len({len(v) for v in value.values()}) > 1:
            raise StudyError(f"column {' or '.join(names)} holds lists of different lengths")
        value = [dict(zip(value, record, strict=True)) for record in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise StudyError(f"column {' or '.join(names)} holds no records")
    return value


def number_in(text: str) -> Fraction | None:
    """The value of a text such as 8.0, 1,250 or 1/2; None if it is not a number."""
    try:
        return Fraction(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    except (ValueError, ZeroDivisionError):
        return None


def one_line(text: str) -> str:
    return " ".join(text.split())


def question_fields(question: str, answer: str, kind: str, **more: object) -> Fields:
    """The fields of a question without a document."""
    return {"text": question, "answer": answer, "kind": kind, "content": content_of(question), **more}


def document_fields(document: Iterable[str], query: str, **more: object) -> Fields:
    """The fields of a question about a document: one line per paragraph or turn, an empty line, the query."""
    lines = [line for line in map(one_line, document) if line]
    if not lines:
        raise StudyError("the document has no text")
    text = "\n".join(lines)
    content = content_about(query, text)
    return {"text": f"{text}\n\n{one_line(query)}", "kind": "text", "content": content, **more}


def gsm8k(row: dict) -> Fields:
    """Columns question, answer: reasoning with <<calculator notes>>, then "#### " and the number.

    The solution is the reasoning without the notes and the last line.
    """
    question, worked = text_in(row, "question"), text_in(row, "answer")
    reasoning, mark, number = worked.rpartition("####")
    answer = number.strip().replace(",", "")
    if not mark or not PLAIN_NUMBER.fullmatch(answer):
        raise StudyError("column answer does not end in '#### ' and a number")
    return question_fields(question, answer, "number", solution=re.sub(r"<<.*?>>", "", reasoning).strip())


def math(row: dict) -> Fields:
    """Columns problem, solution, level ("Level 4" or 4; "Level ?" counts as 0), and answer in MATH-500."""
    problem, solution = text_in(row, "problem"), text_in(row, "solution")
    answer = text_in(row, "answer") if "answer" in row else boxed_gold(problem, solution)
    return question_fields(problem, answer, "latex", solution=solution, level=level_of(row.get("level", 0)))


def level_of(value: object) -> int:
    match = re.fullmatch(r"(?:Level )?([0-5?])", str(value))
    if not match:
        raise StudyError(f"column level holds {value!r}, not 1 to 5")
    return 0 if match[1] == "?" else int(match[1])


def boxes(solution: str) -> list[str]:
    r"""The content of each \boxed{...} (or \fbox) of a solution, with nested braces."""
    found: list[str] = []
    end = 0
    for match in re.finditer(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*", solution):
        if match.start() < end:  # a box within a box
            continue
        rest, depth = solution[match.end() :], 0
        if not rest.startswith("{"):  # "\boxed 5$", a few times in MATH
            # up to the end of the formula, line or sentence (hendrycks/math#23: "\\[x = \\boxed 7.\\] So ...")
            unbraced = re.match(r"(?:[^$\\\n.,;]|\\(?![\])])|[.,;](?=\d))*", rest)
            found.append(unbraced[0].strip() if unbraced else "")
            continue
        for brace in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                found.append(rest[1 : brace.start()].strip())
                end = match.end() + brace.end()
                break
        else:
            raise StudyError(r"a \boxed in column solution is not closed")
    return found


def boxed_gold(problem: str, solution: str) -> str:
    """The gold answer in a solution's boxes.

    Most solutions box one answer, some repeat it in another form. If the boxes differ in meaning and the problem asks
    for several answers separated by commas, all of them together are the answer. Raises StudyError for other differing
    boxes, which are ambiguous, and if there is no box or an empty one.
    """
    found = {re.sub(r"\s", "", box): box for box in boxes(solution)}
    if not found or "" in found:
        raise StudyError(r"column solution has an empty \boxed" if found else r"column solution has no \boxed answer")
    *others, last = found.values()
    if not others:
        return last
    if all(is_correct(f"${other}$", f"${last}$", "latex") for other in others):
        return last
    if re.search(r"separated by commas?|comma[- ]separated", problem) and not any("," in box for box in found):
        return ", ".join(found.values())
    raise StudyError(
        f"column solution boxes different answers ({'; '.join(found.values())}), so the answer is ambiguous"
    )


def metamathqa(row: dict) -> Fields:
    """Columns query, response, type, original_question. The content is that of the original, reworded question."""
    query, response, origin = text_in(row, "query"), text_in(row, "response"), text_in(row, "original_question")
    reasoning, mark, stated = response.rpartition("The answer is:")
    answer = stated.strip()
    if not mark or not answer:
        raise StudyError("column response does not end in 'The answer is:' and an answer")
    plain = answer.replace(",", "")
    number = text_in(row, "type").startswith("GSM") and PLAIN_NUMBER.fullmatch(plain)
    fields = question_fields(query, plain, "number") if number else question_fields(query, answer, "latex")
    return {**fields, "content": content_of(origin), "solution": re.sub(r"\n####.*\s*$", "", reasoning).strip()}


def unfold(questions_of: Callable[[dict], list[dict]], raws: Sequence[Raw]) -> list[Raw]:
    """One row per question, for data sets whose rows (papers, meetings) hold several."""
    unfolded = []
    for raw in raws:
        rows: list[dict] = []
        problem = raw.problem or "the row has no question"
        try:
            rows = questions_of(raw.data) if not raw.problem else []
        except StudyError as error:
            problem = str(error)
        if not rows:
            unfolded.append(replace(raw, problem=problem))
        for i, row in enumerate(rows, start=1):
            unfolded.append(replace(raw, key=f"{raw.key} question {i}".strip(), data=row))
    return unfolded


def medmcqa_letters(raws: Sequence[Raw]) -> list[Raw]:
    """MedMCQA's `cop` as a letter. It counts from 1 in the original files and from 0 on the hub, where -1 is no label.

    All rows together show which: 0 occurs only on the hub, 4 only in the original files. Raises StudyError if both or
    neither occur.
    """
    seen = {raw.data["cop"] for raw in raws if type(raw.data.get("cop")) is int}
    if not seen:
        return list(raws)
    from_zero, from_one = bool(seen & {0, -1}), 4 in seen
    if from_zero == from_one:
        many = "both 0 and 4 occur" if from_one else "neither 0 nor 4 occurs"
        raise StudyError(f"{raws[0].file}: does cop count from 0 or from 1? {many}; load one whole split")
    converted = []
    for raw in raws:
        cop = raw.data.get("cop")
        if type(cop) is int and 0 <= cop - from_one < 4:
            raw = replace(raw, data={**raw.data, "cop": LETTERS[cop - from_one]})
        elif cop in (-1, None):
            raw = replace(raw, problem=raw.problem or "column cop holds no label; the test split's are not public")
        converted.append(raw)
    return converted


def medmcqa(row: dict) -> Fields:
    """Columns question, opa to opd, cop (see `medmcqa_letters`), exp; or question, options {A to D}, answer_idx, answer.

    The content is the question without its options. Equal stems count as one question, so that too many rather
    than too few are removed from training.
    """
    question = text_in(row, "question")
    if "options" in row:
        options = column(row, "options")
        if not isinstance(options, dict):
            raise StudyError(f"column options holds a {type(options).__name__}, not options by letter")
        choices = [text_in(options, letter) for letter in LETTERS]
    else:
        choices = [text_in(row, f"op{letter.lower()}") for letter in LETTERS]
    answer = text_in(row, "answer_idx", "cop")
    if answer not in LETTERS or len(answer) != 1:
        raise StudyError(f"the right option is {answer!r}, not a letter from A to D")
    right, number = choices[LETTERS.index(answer)], number_in(choices[LETTERS.index(answer)])
    alike = [words(one) == words(right) or number_in(one) == number is not None for one in choices]
    if sum(alike) > 1:  # medmcqa/medmcqa#5
        raise StudyError(f"two options are {right!r}, so the answer is ambiguous")
    stated = row.get("answer")
    if stated is not None and stated != right:
        raise StudyError(f"answer_idx is {answer}, but column answer is {stated!r}, so the answer is ambiguous")
    listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    explained = row.get("exp")
    solution = explained.strip() if isinstance(explained, str) else ""
    return {**question_fields(question, answer, "choice", solution=solution), "text": f"{question}\n{listed}"}


def hotpotqa(row: dict) -> Fields:
    """Columns question, answer, context: (title, sentences) pairs, or lists of titles and sentences on the hub.

    The document has all paragraphs, including distractors, but not supporting_facts.
    """
    question, answer, context = text_in(row, "question"), text_in(row, "answer"), column(row, "context")
    if isinstance(context, dict):
        context = [[r.get("title"), r.get("sentences")] for r in records_in(row, "context")]
    paragraphs = []
    for paragraph in context if isinstance(context, list) else [None]:
        match paragraph:
            case [str(title), [*sentences]] if all(isinstance(sentence, str) for sentence in sentences):
                paragraphs.append(f"{title}: {' '.join(sentences)}")
            case _:
                raise StudyError("column context does not hold titles and lists of sentences")
    fields = document_fields(paragraphs, question, answer=answer)
    return {**fields, "content": content_of(question)}


def qasper_questions(paper: dict) -> list[dict]:
    """A paper's questions, each with the paper's title, abstract, section names and paragraphs (no tables)."""
    head = [text_in(paper, "title"), str(paper.get("abstract") or "")]
    body: list[str] = []
    for section in records_in(paper, "full_text"):
        paragraphs = section.get("paragraphs")
        if not isinstance(paragraphs, list):
            raise StudyError("column full_text has a section without paragraphs")
        body += [part for part in (section.get("section_name"), *paragraphs) if isinstance(part, str)]
    if not body:
        raise StudyError("column full_text is empty")
    return [{"document": head + body, **record} for record in records_in(paper, "qas")]


def qasper(row: dict) -> Fields:
    """Columns question, answers, document. The first annotator's answer is the answer, the others are references."""
    question = text_in(row, "question")
    golds = [qasper_answer(annotation) for annotation in records_in(row, "answers")]
    if not golds:
        raise StudyError("column answers is empty")
    first, *others = dict.fromkeys(golds)
    return document_fields(row["document"], question, answer=first, references=others)


def qasper_answer(annotation: dict) -> str:
    """An annotator's answer in the form of QASPER's own evaluator (allenai/qasper-led-baseline)."""
    answer = column(annotation, "answer")
    if not isinstance(answer, dict):
        raise StudyError(f"an annotator's answer is a {type(answer).__name__}, not a record")
    if answer.get("unanswerable"):
        return "Unanswerable"
    if answer.get("extractive_spans") and (spans := texts_in(answer, "extractive_spans")):
        return ", ".join(spans)
    if answer.get("free_form_answer"):
        return text_in(answer, "free_form_answer")
    if answer.get("yes_no") is not None:
        return "Yes" if answer["yes_no"] else "No"
    raise StudyError("an annotator gave no answer of any kind")


def qmsum_queries(meeting: dict) -> list[dict]:
    """A meeting's queries, general ones first, each with the whole transcript."""
    turns = [f"{text_in(t, 'speaker')}: {t.get('content') or ''}" for t in records_in(meeting, "meeting_transcripts")]
    queries = records_in(meeting, "general_query_list") + records_in(meeting, "specific_query_list")
    return [{"document": turns, **query} for query in queries]


def qmsum(row: dict) -> Fields:
    """Columns query, answer, document."""
    return document_fields(row["document"], text_in(row, "query"), answer=text_in(row, "answer"))


def truthfulqa(row: dict) -> Fields:
    """Columns Question, Best Answer, Correct Answers, Incorrect Answers (";" between answers); lower case and lists on
    the hub."""
    question, best = text_in(row, "question", "Question"), text_in(row, "best_answer", "Best Answer")
    right = texts_in(row, "correct_answers", "Correct Answers")
    wrong = texts_in(row, "incorrect_answers", "Incorrect Answers")
    others = [answer for answer in dict.fromkeys(right) if answer != best]
    return question_fields(question, best, "text", references=others, distractors=list(dict.fromkeys(wrong)))
