import subprocess
import sys

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from agentark import StudyError, root
from agentark.files import staged
from agentark.stage.parameters import declared, resolve
from agentark.stage.run import main

COMMITTED = sorted((root() / "notebooks").rglob("*.ipynb"))
CELL = "\n".join(
    [
        'name: str = "small"',
        "steps: int = 100",
        "rate: float = 0.5",
        "cold: bool = False",
        "seeds: list[int] = [0, 1]",
        'out: str = "data/out"',
    ]
)
DEFAULTS = {"name": "small", "steps": 100, "rate": 0.5, "cold": False, "seeds": [0, 1], "out": "data/out"}


def written(folder, *cells, name="07_trial"):
    tagged = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in cells]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Trial"), *tagged]), path)
    return path


@pytest.fixture
def trial(tmp_path):
    return written(tmp_path, CELL)


def refused(function, *arguments):
    """The one line with which something is refused."""
    with pytest.raises(StudyError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_notebook_begins_without_a_grammar_of_web_addresses():
    """Seconds at each of a study's stages: nbformat's checker imports it where it can."""
    begin = f"import sys; from agentark.stage.parameters import read; read({str(COMMITTED[0])!r}); import papermill, agentark.stage.pages"
    told = subprocess.run(
        [sys.executable, "-c", f"{begin}; print('lark' in sys.modules)"], capture_output=True, text=True
    )
    assert told.stdout.strip() == "False", told.stderr


def test_parameters_are_declared_with_type_and_default(trial):
    assert {name: default for name, (_, default) in declared(trial).items()} == DEFAULTS
    assert declared(trial)["seeds"][0] == "list[int]"


def test_defaults_stand_where_nothing_is_given(trial):
    assert resolve(trial, {}, {}) == DEFAULTS


def test_the_command_line_beats_the_section_beats_the_top_level_beats_the_default(trial):
    shared, section, given = {"steps": 1, "rate": 1.5, "name": "shared"}, {"steps": 2, "rate": 2.5}, {"steps": "3"}
    assert resolve(trial, shared, {})["steps"] == 1
    assert resolve(trial, shared | {"trial": section}, {})["steps"] == 2
    assert resolve(trial, shared | {"trial": section}, given) == DEFAULTS | {"name": "shared", "steps": 3, "rate": 2.5}


def test_other_sections_and_other_shared_values_are_none_of_its_business(trial):
    assert resolve(trial, {"scale": "mini", "other": {"steps": 9, "colour": "red"}}, {}) == DEFAULTS


def test_the_command_line_is_read_by_type(trial):
    given = {"name": "12", "steps": "7", "rate": "2", "cold": "true", "seeds": "[3]", "out": "a=b"}
    assert resolve(trial, {}, given) == {
        "name": "12", "steps": 7, "rate": 2.0, "cold": True, "seeds": [3], "out": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("spelling", ["1e-3", "5e-05", "1E-3", "0.001"])
def test_a_float_may_be_spelt_with_an_exponent(trial, spelling):
    assert resolve(trial, {}, {"rate": spelling})["rate"] == float(spelling)


def test_an_int_stands_for_a_float(trial):
    rate = resolve(trial, {"trial": {"rate": 2}}, {})["rate"]
    assert rate == 2.0 and isinstance(rate, float)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", True), ("steps", 1.0), ("steps", "9"), ("steps", None), ("rate", True), ("cold", 1), ("name", 3),
     ("seeds", 1), ("seeds", ["a"]), ("seeds", [True])],
)  # fmt: skip
def test_a_wrong_type_is_refused(trial, name, value):
    assert f"{name}={value!r} is not of type" in refused(resolve, trial, {"trial": {name: value}}, {})
    assert f"{name}={value!r} is not of type" in refused(resolve, trial, {name: value}, {})


@pytest.mark.parametrize(
    "given", [{"steps": "many"}, {"steps": "true"}, {"seeds": "[0"}, {"steps": ""}, {"cold": ": :"}]
)
def test_a_wrong_type_on_the_command_line_is_refused(trial, given):
    assert next(iter(given)) in refused(resolve, trial, {}, given)


def test_a_wrong_name_is_refused_with_the_right_ones(trial):
    for told in (refused(resolve, trial, {}, {"step": "3"}), refused(resolve, trial, {"trial": {"step": 3}}, {})):
        assert "'step'" in told and ", ".join(DEFAULTS) in told


def test_an_unknown_notebook_is_refused_with_the_known_ones(trial):
    told = refused(declared, trial.with_name("08_error.ipynb"))
    assert "08_error" in told and "07_trial" in told


@pytest.mark.parametrize("cells", [(), (CELL, CELL)])
def test_a_notebook_needs_one_parameters_cell(tmp_path, cells):
    assert "exactly one" in refused(declared, written(tmp_path, *cells))


@pytest.mark.parametrize(
    ("given", "told"),
    [("[]", r"07_trial: seeds is empty; give at least one, as in seeds=[0]"),
     ("[0, 1, 0]", "07_trial: seeds has 0 twice; name each once")],
)  # fmt: skip
def test_an_empty_list_of_seeds_and_a_seed_twice_are_refused(trial, given, told):
    assert refused(resolve, trial, {}, {"seeds": given}) == told
    assert refused(resolve, trial, {"trial": {"seeds": yaml.safe_load(given)}}, {}) == told


def test_a_list_that_is_usually_empty_may_be_and_students_may_not():
    notebooks = root() / "notebooks"
    assert resolve(notebooks / "small" / "keep.ipynb", {}, {"students": "[]"})["students"] == []
    assert resolve(notebooks / "03_debate.ipynb", {}, {"teachers": "[a/b, a/b]"})["teachers"] == ["a/b"] * 2
    assert "students is empty" in refused(resolve, notebooks / "01_questions.ipynb", {}, {"students": "[]"})


@pytest.mark.parametrize("section", [{1: 1}, {True: 2}, {None: 3}])
def test_a_section_with_a_key_that_is_no_name_is_refused(trial, section):
    assert "the section trial of params.yaml has the key" in refused(resolve, trial, {"trial": section}, {})
    policy = root() / "notebooks" / "07_policy.ipynb"
    assert "the section policy of params.yaml has the key" in refused(resolve, policy, {"policy": section}, {})


@pytest.mark.parametrize(
    "source",
    ["steps = 3", "import os", "steps: complex = 3", "steps: int", "steps: int = 1 + size", "steps: int = = 3"],
)
def test_an_unclear_parameters_cell_is_refused(tmp_path, source):
    assert "07_trial.ipynb" in refused(declared, written(tmp_path, source))


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "07_trial.ipynb"
    path.write_text("{")
    assert "07_trial.ipynb" in refused(declared, path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["99_none"],
        ["03_debate", "agent=3"],
        ["03_debate", "agents=many"],
        ["03_debate", "x"],
        ["05_distill", "seeds=[]"],
        ["01_questions", "students=[]"],
        ["01_questions", "train=3", "train=5"],
    ],
)
def test_the_command_ends_in_one_line_and_status_1(capsys, arguments):
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def places(tmp_path):
    """A folder and a file, with what an earlier run left there."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights").write_text("old")
    (tmp_path / "models" / "log").write_text("old")
    (tmp_path / "scores.csv").write_text("old")
    return [tmp_path / "models", tmp_path / "scores.csv"]


def write_anew(stand_ins):
    stand_ins[0].mkdir()
    (stand_ins[0] / "weights").write_text("new")
    stand_ins[1].write_text("new")


def test_outputs_replace_the_earlier_ones_whole(tmp_path, places):
    with staged(places) as stand_ins:
        write_anew(stand_ins)
        assert set(contents(tmp_path).values()) == {"old", "new"} and places[1].read_text() == "old"
    assert contents(tmp_path) == {"models/weights": "new", "scores.csv": "new"}


def test_outputs_appear_where_nothing_was(tmp_path):
    with staged([tmp_path / "deep" / "models", tmp_path / "scores.csv"]) as stand_ins:
        write_anew(stand_ins)
    assert contents(tmp_path) == {"deep/models/weights": "new", "scores.csv": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_the_earlier_outputs_and_leaves_nothing(tmp_path, places, error):
    before = contents(tmp_path)
    with pytest.raises(error), staged(places) as stand_ins:
        write_anew(stand_ins)
        raise error
    assert contents(tmp_path) == before
    assert sorted(tmp_path.iterdir()) == sorted(places)


def test_a_forgotten_output_is_a_failure_of_all(tmp_path, places):
    before = contents(tmp_path)
    with (
        pytest.raises(StudyError, match=r"scores\.csv: the notebook ended without writing it"),
        staged(places) as stand_ins,
    ):
        stand_ins[0].mkdir()
    assert contents(tmp_path) == before
    assert sorted(tmp_path.iterdir()) == sorted(places)


def test_what_an_interrupted_run_left_is_cleared_away(tmp_path, places):
    with staged(places) as stand_ins:
        names = [p.name for p in stand_ins]
        write_anew(stand_ins)
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[0] / "half").write_text("half")
    with staged(places) as stand_ins:
        assert not any(p.exists() for p in stand_ins)
        write_anew(stand_ins)
    assert contents(tmp_path) == {"models/weights": "new", "scores.csv": "new"}


@pytest.fixture(params=COMMITTED, ids=lambda path: path.stem)
def committed(request):
    return request.param


def test_there_are_committed_notebooks():
    assert len(COMMITTED) >= 8


def test_a_committed_notebook_carries_no_outputs(committed):
    code = [cell for cell in nbformat.read(committed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_a_committed_notebook_is_short_and_starts_with_its_title(committed):
    cells = nbformat.read(committed, as_version=4).cells
    assert (
        (6 if committed.stem.startswith(("debate", "reward_model", "02_checkpoint", "keep")) else 10)
        <= len(cells)
        <= 30
    )
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


def test_a_committed_notebook_is_valid_and_takes_the_study_s_parameters(committed):
    nbformat.validate(nbformat.read(committed, as_version=4))
    params = yaml.safe_load((root() / "params.yaml").read_text())
    values = resolve(committed, params, {})
    assert any(name == "out" or name.startswith("out_") for name in values)
