"""Robustness of the reasoning: accuracy on perturbed questions. The likelihood of held-out gold reasoning (the paper's
Table 1) is in `evaluate.likelihood`.

A perturbation edits the text of a question of the generated world. The question's graph is then parsed from the new
text, so that the answer and every step of every trace can still be checked exactly. Only the families `equation` and
`word` can be parsed. In `facts` the facts to recall depend on the names; `meta`, `hops`, `passage` and `digest` have
other sentence forms, and the last three look values up without arithmetic.
"""

import itertools
import random
from collections.abc import Sequence

from agentark import StudyError
from agentark.debate.prompts import summarise_prompt
from agentark.evaluate.scores import System, baselines
from agentark.schemas import Question
from agentark.tasks import TASKS
from agentark.tasks.world.perturb import DRAWS, EDITS, FAMILIES, in_range, join_sentences, misread, read, sentences

# The right hint is the control: a system that gains nothing from it cannot read hints.
HINTS = ("right hint", "wrong hint")
PERTURBATIONS = (*EDITS, *HINTS)
UNPERTURBED = "unperturbed"


def perturbed(question: Question, how: str) -> Question | None:
    """The perturbed question with its graph, answer and a gold solution; None if the question does not allow this.

    how: one of PERTURBATIONS. The id stays the same; the random draws depend only on the id and `how`. A hint is a
    peer's trace after the question, in the wording of the summariser's prompt. Raises StudyError for a question outside
    FAMILIES, or an unknown `how`.
    """
    if how not in PERTURBATIONS:
        raise StudyError(f"perturbation {how!r} is unknown; choose one of {', '.join(PERTURBATIONS)}")
    read(question.text)
    rng = random.Random(f"{how}|{question.question_id}")
    if how in HINTS:
        trace = question.solution if how == "right hint" else misread(question, rng)
        if not trace:
            return None
        return question.model_copy(update={"text": summarise_prompt(question, [trace])[0]["content"]})
    for _ in range(DRAWS):
        edited = EDITS[how](sentences(question.text), rng)
        draft = edited and read(join_sentences(edited))
        if draft and in_range(draft):
            solution = "\n".join(draft.solve(rng))
            graph = TASKS[question.task].quantities(draft, solution)
            new = {"text": draft.text, "solution": solution, "answer": draft.answer, "quantities": graph}
            return question.model_copy(update=new)
    return None


def settings(questions: Sequence[Question], harder: Sequence[Question], n: int) -> dict[str, list[Question]]:
    """Questions by setting: for each perturbation, the first `n` questions that allow it, perturbed; "unperturbed": the
    originals of all perturbed questions; "more steps": the first `n` harder questions. Empty if a question's family
    cannot be parsed."""
    if any(q.task not in FAMILIES for q in questions):
        return {}
    changed = {
        how: list(itertools.islice(filter(None, (perturbed(q, how) for q in questions)), n)) for how in PERTURBATIONS
    }
    used = {q.question_id for some in changed.values() for q in some}
    found = {UNPERTURBED: [q for q in questions if q.question_id in used], **changed, "more steps": list(harder[:n])}
    return {setting: some for setting, some in found.items() if some}


def baselines_of(system: System) -> list[System]:
    """A system's baselines: those of the main study; in a perturbed setting also the system itself on the unperturbed
    questions; with a wrong hint also the system itself with a right hint."""
    rivals = baselines(system)
    if system["setting"] in PERTURBATIONS:
        rivals = [*rivals, {"setting": UNPERTURBED}]
    return [*rivals, {"setting": HINTS[0]}] if system["setting"] == HINTS[1] else rivals
