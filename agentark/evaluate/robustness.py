"""What changed in the reasoning, and does it hold: the likelihood of held-out gold reasoning (the paper's Table 1), and
accuracy when the same question is put in another way.

A perturbation edits the words of a question of the generated world. The question's graph is then read off the new words,
so that the answer, and every step of every trace, stay exactly checkable. Two families can be read: `equation` and
`word`. The others are left out: in `facts` the names carry what is to be remembered; `meta`, `hops`, `passage` and
`digest` have sentences of their own, and the last three read values off without reckoning.
"""

import itertools
import random
from collections.abc import Sequence

from agentark import StudyError
from agentark.debate.prompts import summarise_prompt
from agentark.evaluate.scores import System, baselines
from agentark.schemas import Question
from agentark.tasks import TASKS
from agentark.tasks.world.perturb import DRAWS, EDITS, FAMILIES, in_range, joined, misread, read, sentences

HINTS = ("right hint", "wrong hint")  # the right one is the control: who gains nothing from it cannot read hints
PERTURBATIONS = (*EDITS, *HINTS)
UNPERTURBED = "unperturbed"


def perturbed(question: Question, how: str) -> Question | None:
    """The question put another way, with its graph, answer and a gold solution; None if it does not allow that.

    how: one of PERTURBATIONS. Its id stays, and alone decides what is drawn. A hint is a peer's trace after the question,
    in the words in which a debate's summariser is told traces. Raises StudyError for a question of neither of FAMILIES,
    or another `how`.
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
        draft = edited and read(joined(edited))
        if draft and in_range(draft):
            solution = "\n".join(draft.solve(rng))
            graph = TASKS[question.task].quantities(draft, solution)
            new = {"text": draft.text, "solution": solution, "answer": draft.answer, "quantities": graph}
            return question.model_copy(update=new)
    return None


def settings(questions: Sequence[Question], harder: Sequence[Question], n: int) -> dict[str, list[Question]]:
    """The first `n` questions that each perturbation can be made of, so perturbed; "unperturbed", all that were used, as
    they are; and "more steps", `n` of the harder ones. Empty where the family's words cannot be read."""
    if any(q.task not in FAMILIES for q in questions):
        return {}
    made = {
        how: list(itertools.islice(filter(None, (perturbed(q, how) for q in questions)), n)) for how in PERTURBATIONS
    }
    used = {q.question_id for some in made.values() for q in some}
    asked = {UNPERTURBED: [q for q in questions if q.question_id in used], **made, "more steps": list(harder[:n])}
    return {setting: some for setting, some in asked.items() if some}


def against(system: System) -> list[System]:
    """What a system is compared with in each setting: as in the main study, and with itself on the same questions
    unperturbed; with a wrong hint also with itself on a right one."""
    rivals = baselines(system)
    if system["setting"] in PERTURBATIONS:
        rivals = [*rivals, {"setting": UNPERTURBED}]
    return [*rivals, {"setting": HINTS[0]}] if system["setting"] == HINTS[1] else rivals
