"""Notebooks: their parameters, their outputs, and the form of the committed ones."""

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


def write_notebook(folder, *cells, name="07_trial"):
    tagged = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in cells]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Trial"), *tagged]), path)
    return path


@pytest.fixture
def trial(tmp_path):
    return write_notebook(tmp_path, CELL)


def error_of(function, *arguments):
    """The message, of one line, of the StudyError that a call raises."""
    with pytest.raises(StudyError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_reading_a_notebook_does_not_import_a_grammar_of_web_addresses():
    """nbformat's validation imports the grammar if it is installed, which takes seconds at each stage of a study."""
    code = (
        f"import sys; from agentark.stage.parameters import read; read({str(COMMITTED[0])!r}); "
        "import papermill, agentark.stage.pages; print('lark' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_parameters_are_declared_with_type_and_default(trial):
    assert {name: default for name, (_, default) in declared(trial).items()} == DEFAULTS
    assert declared(trial)["seeds"][0] == "list[int]"


def test_defaults_apply_if_no_value_is_given(trial):
    assert resolve(trial, {}, {}) == DEFAULTS


def test_command_line_overrides_section_overrides_top_level_overrides_default(trial):
    shared, section, given = {"steps": 1, "rate": 1.5, "name": "shared"}, {"steps": 2, "rate": 2.5}, {"steps": "3"}
    assert resolve(trial, shared, {})["steps"] == 1
    assert resolve(trial, shared | {"trial": section}, {})["steps"] == 2
    assert resolve(trial, shared | {"trial": section}, given) == DEFAULTS | {"name": "shared", "steps": 3, "rate": 2.5}


def test_other_sections_and_undeclared_shared_values_are_ignored(trial):
    assert resolve(trial, {"scale": "mini", "other": {"steps": 9, "colour": "red"}}, {}) == DEFAULTS


def test_values_of_the_command_line_are_parsed_by_type(trial):
    given = {"name": "12", "steps": "7", "rate": "2", "cold": "true", "seeds": "[3]", "out": "a=b"}
    assert resolve(trial, {}, given) == {
        "name": "12", "steps": 7, "rate": 2.0, "cold": True, "seeds": [3], "out": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("spelling", ["1e-3", "5e-05", "1E-3", "0.001"])
def test_float_may_be_written_with_an_exponent(trial, spelling):
    assert resolve(trial, {}, {"rate": spelling})["rate"] == float(spelling)


def test_int_is_converted_to_a_float(trial):
    rate = resolve(trial, {"trial": {"rate": 2}}, {})["rate"]
    assert rate == 2.0 and isinstance(rate, float)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", True), ("steps", 1.0), ("steps", "9"), ("steps", None), ("rate", True), ("cold", 1), ("name", 3),
     ("seeds", 1), ("seeds", ["a"]), ("seeds", [True])],
)  # fmt: skip
def test_a_wrong_type_is_refused(trial, name, value):
    assert f"{name}={value!r} is not of type" in error_of(resolve, trial, {"trial": {name: value}}, {})
    assert f"{name}={value!r} is not of type" in error_of(resolve, trial, {name: value}, {})


@pytest.mark.parametrize(
    "given", [{"steps": "many"}, {"steps": "true"}, {"seeds": "[0"}, {"steps": ""}, {"cold": ": :"}]
)
def test_a_wrong_type_on_the_command_line_is_refused(trial, given):
    assert next(iter(given)) in error_of(resolve, trial, {}, given)


def test_unknown_parameter_is_refused_with_the_valid_names(trial):
    for message in (error_of(resolve, trial, {}, {"step": "3"}), error_of(resolve, trial, {"trial": {"step": 3}}, {})):
        assert "'step'" in message and ", ".join(DEFAULTS) in message


def test_unknown_notebook_is_refused_with_the_existing_ones(trial):
    message = error_of(declared, trial.with_name("08_error.ipynb"))
    assert "08_error" in message and "07_trial" in message


@pytest.mark.parametrize("cells", [(), (CELL, CELL)])
def test_notebook_needs_exactly_one_parameters_cell(tmp_path, cells):
    assert "exactly one" in error_of(declared, write_notebook(tmp_path, *cells))


@pytest.mark.parametrize(
    ("given", "message"),
    [("[]", r"07_trial: seeds is empty; give at least one, as in seeds=[0]"),
     ("[0, 1, 0]", "07_trial: seeds has 0 twice; name each once")],
)  # fmt: skip
def test_empty_list_of_seeds_and_a_repeated_seed_are_refused(trial, given, message):
    assert error_of(resolve, trial, {}, {"seeds": given}) == message
    assert error_of(resolve, trial, {"trial": {"seeds": yaml.safe_load(given)}}, {}) == message


def test_list_may_be_empty_only_if_its_default_is_empty():
    notebooks = root() / "notebooks"
    assert resolve(notebooks / "small" / "keep.ipynb", {}, {"students": "[]"})["students"] == []
    assert resolve(notebooks / "03_debate.ipynb", {}, {"teachers": "[a/b, a/b]"})["teachers"] == ["a/b"] * 2
    assert "students is empty" in error_of(resolve, notebooks / "01_questions.ipynb", {}, {"students": "[]"})


@pytest.mark.parametrize("section", [{1: 1}, {True: 2}, {None: 3}])
def test_section_with_a_key_that_is_not_a_string_is_refused(trial, section):
    assert "the section trial of params.yaml has the key" in error_of(resolve, trial, {"trial": section}, {})
    policy = root() / "notebooks" / "07_policy.ipynb"
    assert "the section policy of params.yaml has the key" in error_of(resolve, policy, {"policy": section}, {})


@pytest.mark.parametrize(
    "source",
    ["steps = 3", "import os", "steps: complex = 3", "steps: int", "steps: int = 1 + size", "steps: int = = 3"],
)
def test_invalid_parameters_cell_is_refused(tmp_path, source):
    assert "07_trial.ipynb" in error_of(declared, write_notebook(tmp_path, source))


def test_file_that_is_not_a_notebook_is_refused(tmp_path):
    path = tmp_path / "07_trial.ipynb"
    path.write_text("{")
    assert "07_trial.ipynb" in error_of(declared, path)


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
def test_refused_command_prints_one_line_and_has_exit_status_1(capsys, arguments):
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def outputs(tmp_path):
    """An output folder and an output file, with the contents of an earlier run."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights").write_text("old")
    (tmp_path / "models" / "log").write_text("old")
    (tmp_path / "scores.csv").write_text("old")
    return [tmp_path / "models", tmp_path / "scores.csv"]


def write_new(partials):
    partials[0].mkdir()
    (partials[0] / "weights").write_text("new")
    partials[1].write_text("new")


def test_new_outputs_replace_the_earlier_ones_completely(tmp_path, outputs):
    with staged(outputs) as partials:
        write_new(partials)
        assert set(contents(tmp_path).values()) == {"old", "new"} and outputs[1].read_text() == "old"
    assert contents(tmp_path) == {"models/weights": "new", "scores.csv": "new"}


def test_outputs_are_created_where_there_were_none(tmp_path):
    with staged([tmp_path / "deep" / "models", tmp_path / "scores.csv"]) as partials:
        write_new(partials)
    assert contents(tmp_path) == {"deep/models/weights": "new", "scores.csv": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_earlier_outputs_and_leaves_no_partial_ones(tmp_path, outputs, error):
    before = contents(tmp_path)
    with pytest.raises(error), staged(outputs) as partials:
        write_new(partials)
        raise error
    assert contents(tmp_path) == before
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_missing_output_fails_the_stage_and_keeps_all_earlier_outputs(tmp_path, outputs):
    before = contents(tmp_path)
    with (
        pytest.raises(StudyError, match=r"scores\.csv: the notebook ended without writing it"),
        staged(outputs) as partials,
    ):
        partials[0].mkdir()
    assert contents(tmp_path) == before
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_partial_outputs_of_an_interrupted_run_are_removed(tmp_path, outputs):
    with staged(outputs) as partials:
        names = [p.name for p in partials]
        write_new(partials)
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[0] / "half").write_text("half")
    with staged(outputs) as partials:
        assert not any(p.exists() for p in partials)
        write_new(partials)
    assert contents(tmp_path) == {"models/weights": "new", "scores.csv": "new"}


@pytest.fixture(params=COMMITTED, ids=lambda path: path.stem)
def committed(request):
    return request.param


def test_there_are_committed_notebooks():
    assert len(COMMITTED) >= 8


def test_committed_notebook_has_no_outputs(committed):
    code = [cell for cell in nbformat.read(committed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_committed_notebook_is_short_and_starts_with_its_title(committed):
    cells = nbformat.read(committed, as_version=4).cells
    assert (
        (6 if committed.stem.startswith(("debate", "reward_model", "02_checkpoint", "keep")) else 10)
        <= len(cells)
        <= 30
    )
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


def test_committed_notebook_is_valid_and_accepts_the_parameters_of_params_yaml(committed):
    nbformat.validate(nbformat.read(committed, as_version=4))
    params = yaml.safe_load((root() / "params.yaml").read_text())
    values = resolve(committed, params, {})
    assert any(name == "out" or name.startswith("out_") for name in values)
