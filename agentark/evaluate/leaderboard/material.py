"""Input of every method of the leaderboard: a student, the teachers, their debates on the training questions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agentark import StudyError, root
from agentark.debate.protocols import Debate
from agentark.files import write_json
from agentark.schemas import CheckedTrace, Question, read_table, write_table


@dataclass(frozen=True)
class Material:
    """The only input of a method, see the leaderboard's rules.

    teachers: the models of the debate; agents use them in turn. traces: of the training questions, by source: "debate"
    and its controls. Test questions are not included.
    """

    student: Path
    teachers: Sequence[Path]
    debate: Debate
    questions: Sequence[Question]
    traces: Mapping[str, Sequence[CheckedTrace]]

    @property
    def asked(self) -> dict[str, Question]:
        return {q.question_id: q for q in self.questions}

    def source(self, name: str) -> Sequence[CheckedTrace]:
        """Return the traces of a source. Raises StudyError if the source is missing."""
        if name not in self.traces:
            raise StudyError(f"source {name!r}: no traces; choose one of {', '.join(self.traces)}")
        return self.traces[name]

    def write(self, folder: Path) -> None:
        """Write material.json, train.parquet, and one table of traces per source."""
        models = {
            "student": relative_name(self.student),
            "teachers": [relative_name(teacher) for teacher in self.teachers],
        }
        debate = {name: value for name, value in asdict(self.debate).items() if name != "foreign"}
        write_json(models | {"debate": debate, "sources": list(self.traces)}, folder / "material.json")
        write_table(self.questions, folder / "train.parquet")
        for name, traces in self.traces.items():
            write_table(traces, folder / f"traces-{name}.parquet")


def relative_name(model: Path) -> str:
    """Return a model's folder relative to the project's root."""
    return Path(model).absolute().relative_to(root()).as_posix()


def read_material(folder: Path) -> Material:
    """Read material that `Material.write` has saved. Raises StudyError if the folder contains none."""
    try:
        saved = json.loads((folder / "material.json").read_text())
    except (OSError, ValueError) as error:
        raise StudyError(f"{folder}: no material for the leaderboard ({error}); run `make leaderboard`") from None
    return Material(
        student=root() / saved["student"],
        teachers=[root() / teacher for teacher in saved["teachers"]],
        debate=Debate(**saved["debate"]),
        questions=read_table(folder / "train.parquet", Question),
        traces={name: read_table(folder / f"traces-{name}.parquet", CheckedTrace) for name in saved["sources"]},
    )
