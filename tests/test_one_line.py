"""A failing command prints one error line without secrets and overwrites nothing."""

import base64
import html
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from agentark import StudyError, exit_status, redacted, root
from agentark.stage import run as stage_run
from agentark.stage.parameters import read_params, resolve, typed
from agentark.stage.run import main

PROJECT = Path(__file__).resolve().parent.parent
KEY = "sk-made-up-0123456789"
POLICY, DEBATE = (root() / f"notebooks/{name}.ipynb" for name in ("07_policy", "03_debate"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project with parameters and earlier results; each test adds its notebooks."""
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "params.yaml").write_text("scale: mini\nquick:\n  steps: 3\n")
    (folder / "data/other").mkdir(parents=True)
    (folder / "data/other/result").write_text("good")
    monkeypatch.chdir(folder)
    return folder


def write_notebook(folder, name: str, *cells: str) -> None:
    parameters = new_code_cell(
        'steps: int = 1\nrate: float = 0.5\nname: str = ""\nout: str = "data/try"', metadata={"tags": ["parameters"]}
    )
    output = (
        "from pathlib import Path\np = Path('..') / out\n"
        "p.mkdir(parents=True, exist_ok=True)\n(p / 'x').write_text('x')"
    )
    cells = [new_code_cell(cell) for cell in cells]
    nbformat.write(
        new_notebook(cells=[parameters, *cells, new_code_cell(output)]), folder / "notebooks" / f"{name}.ipynb"
    )


def run(folder, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    combined = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    return subprocess.run(
        [sys.executable, "-m", "agentark.stage", *arguments], cwd=folder, env=combined, capture_output=True, text=True
    )


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def texts(folder) -> str:
    return "\n".join(p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file())


def test_key_printed_by_a_notebook_is_redacted_in_all_files_and_output(project):
    write_notebook(project, "quick", "import os\nprint(os.environ['OPENAI_API_KEY'], dict(os.environ))")
    done = run(project, "quick", OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr + texts(project) and "[secret]" in texts(project)


def test_key_in_an_error_of_a_notebook_is_redacted_in_all_files_and_output(project):
    write_notebook(
        project, "quick", "import os\nraise ValueError('refused: ' + os.environ['OPENAI_API_KEY'] + '\\nmore')"
    )
    done = run(project, "quick", OPENAI_API_KEY=f"{KEY}\n")
    assert "ValueError: refused: [secret]" in one_line(done)
    assert KEY not in done.stdout + done.stderr + texts(project)
    assert (project / "data/runs/quick.ipynb").exists() and not (project / "data/try").exists()


def test_failed_run_keeps_the_earlier_output_and_a_later_run_may_replace_it(project):
    write_notebook(project, "quick", "assert steps < 5, 'too many'")
    for out in ("data/try", "data/again/try"):
        assert run(project, "quick", f"out={out}").returncode == 0
        assert "too many" in one_line(run(project, "quick", f"out={out}", "steps=9"))
        assert (project / out / "x").read_text() == "x"
    for out in ("data/try", "data/again/try"):
        assert run(project, "quick", f"out={out}").returncode == 0


def test_trial_writes_its_own_page_and_keeps_the_page_of_the_usual_run(project):
    write_notebook(project, "quick")
    assert run(project, "quick").returncode == 0
    pages = project / "reports/notebooks"
    usual = (pages / "quick.html").read_bytes()
    for out in ("data/t2", f"{project}/data/x/a", "data/y/a"):
        assert run(project, "quick", "steps=2", f"out={out}").returncode == 0
    assert (pages / "quick.html").read_bytes() == usual
    trials = {page.name: page.read_text() for page in pages.glob("quick--*")}
    assert set(trials) == {"quick--t2.html", "quick--x--a.html", "quick--y--a.html"}
    assert str(project) not in "".join(trials.values()) and "data/x/a" in trials["quick--x--a.html"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_after_the_last_cell_loses_no_output(project, monkeypatch, number):
    write_notebook(project, "quick")
    original = stage_run.write_pages

    def signal_and_write(*arguments):
        os.kill(os.getpid(), number)
        original(*arguments)

    monkeypatch.setattr(stage_run, "write_pages", signal_and_write)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    assert main(["quick"]) == 0
    assert (project / "data/try/x").is_file() and (project / "reports/notebooks/quick.html").is_file()
    assert json.loads((project / "data/runs/quick.json").read_text())["outs"] == ["data/try"]


@pytest.mark.parametrize(
    "value", [f"http://me:{KEY}@host/v1#m", "http://host/v1?api_key=hunter2#m", "https://host/?token=hunter2", KEY]
)
def test_key_in_a_parameter_is_refused_and_not_printed(value):
    with pytest.raises(StudyError) as error:
        typed("03_debate", "teacher", "str", value)
    assert (
        "teacher contains a key" in str(error.value)
        and "hunter2" not in str(error.value)
        and KEY not in str(error.value)
    )


def test_killed_kernel_is_reported_in_one_line(project):
    write_notebook(project, "quick", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "ended before the notebook's last cell" in one_line(run(project, "quick"))


def test_user_kernel_with_the_same_name_is_not_used(project, tmp_path):
    write_notebook(project, "quick")
    for folder in (tmp_path / "home/.local/share/jupyter", tmp_path / "own"):
        (folder / "kernels/python3").mkdir(parents=True)
        spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "mine", "language": "python"}
        (folder / "kernels/python3/kernel.json").write_text(json.dumps(spec))
    done = run(project, "quick", HOME=str(tmp_path / "home"), JUPYTER_PATH=str(tmp_path / "own"))
    assert done.returncode == 0, done.stderr


def test_run_succeeds_with_a_long_or_missing_temporary_folder(project, tmp_path):
    write_notebook(project, "quick")
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    for folder in (long, tmp_path / "none"):
        done = run(project, "quick", TMPDIR=str(folder))
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("unshare") or os.getuid() != 0, reason="a read-only mount needs root")
def test_read_only_project_is_reported_in_one_line(project):
    write_notebook(project, "quick")
    mount = (
        f'mount --bind "{project}" "{project}" && mount -o remount,ro,bind "{project}" && cd "{project}" && exec "$@"'
    )
    command = [sys.executable, "-m", "agentark.stage", "quick"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *command],
        cwd=project, env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "Read-only file system" in one_line(done)


@pytest.mark.parametrize(
    "name", ["../notebooks/quick", "notebooks/quick.ipynb", "", "quick ", "-quick", "no\nname", "nöne"]
)
def test_invalid_notebook_name_is_reported_in_one_line(project, capsys, name):
    write_notebook(project, "quick")
    if name.startswith("-"):
        with pytest.raises(SystemExit):
            main([name])
    else:
        assert main([name]) == 1
        assert capsys.readouterr().err.count("\n") == 1


BROKEN = {
    "empty": (b"", "empty"), "comments": (b"# nothing\n", "empty"), "a list": (b"- a\n", "list"),
    "text": (b"hello", "str"),
    "a tab": (b"a:\n\tb: 1\n", "line 2"), "markers": (b"a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> x\n", "line"),
    "twice": (b"a: 1\nb: 2\na: 3\n", "a appears twice"), "anchor": (b"a: *none\n", "line 1"),
    "bytes": (b"a: \xff\n", "not readable"), "open": (b"a: [1, 2\n", "line"),
    "a tag": (b"a: !!python/object:os.system {}\n", "line"),
    "a section": (b"quick: [1]\n", "not a mapping"), "a section of text": (b"quick: hello\n", "not a mapping"),
    "deep": (b"a: " + b"[" * 5000, "not"), "twice below": (b"quick:\n  steps: 1\n  steps: 2\n", "steps appears twice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_params_file_is_reported_in_one_line_with_the_reason(project, capsys, kind):
    write_notebook(project, "quick")
    content, reason = BROKEN[kind]
    (project / "params.yaml").write_bytes(content)
    assert main(["quick"]) == 1
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and "params.yaml" in error


def test_params_file_with_byte_order_mark_and_crlf_line_ends_is_read(project):
    (project / "params.yaml").write_bytes(b"\xef\xbb\xbfscale: mini\r\nquick:\r\n  steps: 4\r\n")
    assert read_params(project / "params.yaml") == {"scale": "mini", "quick": {"steps": 4}}


@pytest.mark.parametrize(
    ("spelling", "value"),
    [("1e-05", 1e-5), ("1e-3", 1e-3), ("1E5", 1e5), ("1.e-3", 1e-3), (".5", 0.5), ("+1.5", 1.5), ("6.02e23", 6.02e23),
     ("1e+2", 100.0), ("-2e-4", -2e-4), ("1_000.5", 1000.5), ("3", 3.0), ("'1e-05'", 1e-5)],
)  # fmt: skip
def test_numbers_are_read_in_every_yaml_form(tmp_path, spelling, value):
    file = tmp_path / "params.yaml"
    file.write_text(f"policy:\n  beta: {spelling}\n")
    assert resolve(POLICY, read_params(file), {})["policy"]["beta"] == value
    assert resolve(POLICY, {}, {"policy.beta": spelling})["policy"]["beta"] == value


@pytest.mark.parametrize("spelling", [".inf", "-.inf", ".nan", "inf", "nan", "1e999", "", "one", "1,5", "true", "null"])
def test_value_that_is_not_a_finite_number_is_refused(tmp_path, spelling):
    file = tmp_path / "params.yaml"
    file.write_text(f"policy:\n  beta: {spelling}\n")
    with pytest.raises(StudyError, match="policy"):
        resolve(POLICY, read_params(file), {})
    with pytest.raises(StudyError, match="policy"):
        resolve(POLICY, {}, {"policy.beta": spelling})


@pytest.mark.parametrize("text", ["off", "on", "yes", "No", "y", "1:30", "12:30:45.5"])
def test_words_that_dvc_writes_without_quotes_are_read_as_text(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(f"debate:\n  thinking: {text}\n")
    assert resolve(DEBATE, read_params(file), {})["thinking"] == text
    with pytest.raises(StudyError, match="pad='off' is not of type bool; write true or false"):
        resolve(root() / "notebooks/08_evaluate.ipynb", {}, {"pad": "off"})
    assert resolve(root() / "notebooks/08_evaluate.ipynb", {}, {"pad": "False"})["pad"] is False


def test_system_prompt_may_have_several_lines_but_a_model_name_may_not(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("debate:\n  system: |\n    Be brief.\n    \tNo lists.\n")
    assert resolve(DEBATE, read_params(file), {})["system"] == "Be brief.\n\tNo lists.\n"
    with pytest.raises(StudyError, match="not printable"):
        resolve(DEBATE, {}, {"system": "a\x1b[0m"})
    with pytest.raises(StudyError, match="not printable"):
        resolve(DEBATE, {}, {"teacher": "a\nb"})


def test_list_of_numbers_is_read_in_every_form():
    assert typed("n", "rates", "list[float]", ["1e-5", 2e-4, 1]) == [1e-5, 2e-4, 1.0]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(StudyError("a\nb"), 1, "a b"), (KeyboardInterrupt(), 130, "interrupted"),
     (ValueError("x\ny"), 1, "ValueError: x"),
     (OSError(28, "No space left on device", "data/x"), 1, "data/x: No space left"),
     (RuntimeError(), 1, "no reason given")],
)  # fmt: skip
def test_every_error_of_a_command_is_reported_in_one_line(project, capsys, monkeypatch, error, status, message):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def failing():
        raise error from ValueError(KEY)

    assert exit_status(failing) == status
    stderr = capsys.readouterr().err
    assert message in stderr and stderr.count("\n") == 1 and KEY not in stderr + texts(project)


def test_redaction_finds_a_key_in_every_encoding(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "odd key\nof two ünits")
    text = f"{os.environ['OPENAI_API_KEY']} {os.environ['OPENAI_API_KEY']!r} {os.environ['OPENAI_API_KEY']!a}"
    assert "ünits" not in redacted(text) and "odd key" not in redacted(text)
    key = "Zq/7+k=<'ü&\"\\9"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    in_url, in_json = quote(key, safe=""), json.dumps(key)[1:-1]
    forms = [key, in_url, quote(key), re.sub("%..", lambda code: code[0].lower(), in_url), html.escape(key),
             html.escape(key, quote=False), in_json, in_json.replace("/", "\\/"),
             base64.b64encode(key.encode()).decode()]  # fmt: skip
    assert {redacted(form).rstrip("=") for form in forms} == {"[secret]"}
    assert redacted("the task-force of 12 keys, hf_hub, disk-usage") == "the task-force of 12 keys, hf_hub, disk-usage"


ODD = (
    "1e-05",
    "yes",
    "[1, 2",
    "{",
    "- x",
    "!!python/none",
    "\t",
    "*a",
    "&a 1",
    "<<: *a",
    "'",
    "ä\u202e",
    "null",
    ".inf",
    "=",
    "0x1F",
    "",
)


def mutated(rng: random.Random, text: str) -> bytes:
    """params.yaml with some lines deleted, swapped, duplicated, truncated or given odd values."""
    lines = text.split("\n")
    for _ in range(rng.randrange(1, 6)):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        change = rng.randrange(6)
        if change == 0:
            del lines[i]
        elif change == 1:
            lines[i], lines[j] = lines[j], lines[i]
        elif change == 2:
            lines.insert(i, lines[j])
        elif change == 3:
            lines[i] = lines[i].partition(":")[0] + ": " + rng.choice(ODD)
        elif change == 4:
            lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
        else:
            lines.insert(i, rng.choice(ODD))
        lines = lines or [""]
    return "\n".join(lines).encode()[: None if rng.random() < 0.9 else rng.randrange(4000)]


@pytest.mark.parametrize("n", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_random_parameters_and_commands_print_one_error_and_overwrite_nothing(project, capsys, monkeypatch, n):
    rng = random.Random(n)
    for name in ("03_debate", "07_policy", "10_report"):
        shutil.copy(PROJECT / "notebooks" / f"{name}.ipynb", project / "notebooks")
    runs = []

    def executed(notebook, place, values):  # replaces papermill, which takes seconds per run
        runs.append(values)
        raise StudyError("reached the kernel")

    monkeypatch.setattr("agentark.stage.run.execute", executed)
    valid = (PROJECT / "params.yaml").read_text()
    outs = (
        "data/other",
        "data",
        "",
        "..",
        "reports/x.csv",
        "data/new",
        "/etc",
        "notebooks",
        "data/debates/try",
        "data/store/x",
    )
    for _ in range(n):
        (project / "params.yaml").write_bytes(mutated(rng, valid) if rng.random() < 0.7 else valid.encode())
        before = {p: p.read_bytes() for p in project.rglob("*") if p.is_file() and "runs" not in p.parts}
        arguments = [
            f"{rng.choice(('policy.beta', 'agents', 'seed', 'order', 'x', '', 'out'))}={rng.choice((*ODD, *outs))}"
            for _ in range(rng.randrange(3))
        ]
        status = main([rng.choice(("03_debate", "07_policy", "10_report", "none", "..")), *arguments])
        stderr = capsys.readouterr().err
        assert status == 1 and stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
        assert "the traceback is in" not in stderr, stderr
        assert before == {p: p.read_bytes() for p in project.rglob("*") if p.is_file() and "runs" not in p.parts}
    assert runs  # some commands were valid
