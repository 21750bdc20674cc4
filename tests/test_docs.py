"""The documentation is short, its links resolve, its commands are tested, and it names the columns of every table."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from small_study import PROJECT, SMALL, call, copy_of_project, environment, shrunk

from agentark import schemas
from agentark.models.checkpoints import digest
from agentark.stage import summary
from agentark.stage.parameters import read_params, resolve

README = PROJECT / "README.md"
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
YOUR_OWN = PROJECT / "docs" / "your-own.md"
LINKED = [*PAGES, PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md"]
LINES, FIRST_COMMAND = 120, 25  # the most lines of the README; the last line for its first command
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(pages: Sequence[Path]) -> Iterator[str]:
    """All commands of the pages, without comments."""
    for page in pages:
        for block in blocks(page, "bash"):
            for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
                if command := re.split(r"(?:^|\s+)#\s", line)[0].strip():
                    yield command


MAKE = "make -n"  # the target exists
LIST = "dvc stage list"  # DVC reads the pipeline, which takes too long to run
SET = "params.yaml"  # the parameter that -S sets exists; a similar command is run
# Command -> how it is tested: one of the above; a list of arguments added to run it in a small copy; or another test.
COMMANDS: dict[str, str | list[str]] = {
    "dvc repro": "test_study.py::test_a_second_repro_does_nothing",
    "AGENTARK_HOURS=2 dvc repro": "test_deadline.py::test_all_stages_of_one_command_share_one_deadline",
    "dvc status": "test_changes.py::test_a_changed_parameter_reruns_only_what_depends_on_it",
    "dvc repro notebooks/ablations/dvc.yaml": LIST,
    "dvc repro notebooks/choices/dvc.yaml": LIST,
    "dvc repro notebooks/specialists/dvc.yaml": LIST,
    "dvc repro -s notebooks/small/dvc.yaml:page": [],
    "dvc repro -s notebooks/choices/dvc.yaml:cards": [],
    "dvc commit base_models@teacher": [],
    "dvc metrics diff": [],
    "dvc plots show": [],
    "dvc exp run -S policy.outcome_weight=1.0": ["questions"],  # a stage that does not use this value: nothing has to run
    "dvc exp run -S debate.order=chat": SET,
    "dvc exp run -S debate.protocol=mad": SET,
    "python -m agentark.stage 01_questions tasks=[my_questions.jsonl] train_task=my_questions train=40 validation=2 test=8 "
    "room=1000 out=data/questions-mine": [],
    "python -m agentark.stage 03_debate teachers=[data/models/teacher,data/grid/models/gemma-teacher] out=data/debates/two": [],
    "python -m agentark.stage 03_debate agents=3 temperature=1.0 out=data/debates/three-agents": [],
    "python -m agentark.stage 03_debate teacher=vllm:data/models/teacher out=data/debates/try": (
        "test_conformance.py::test_a_greedy_debate_is_identical_with_every_engine"
    ),
    "python -m agentark.stage 03_debate teacher=vllm:Qwen/Qwen3-8B thinking=on thought_tokens=4096 "
    "out=data/debates/thinking": (
        "test_thinking.py::test_thoughts_are_excluded_from_prompts_grading_steps_and_training"
    ),
    "python -m agentark.stage 03_debate teacher=llama.cpp:models/smollm2.gguf out=data/debates/try": (
        "test_llama_cpp.py::test_debate_runs_in_worker_processes_and_resumes_from_the_store"
    ),
    "python -m agentark.stage 03_debate teacher=http://127.0.0.1:8000/v1#teacher@f3f8296c out=data/debates/try": (
        "test_conformance.py::test_a_greedy_debate_is_identical_with_every_engine"
    ),
    "python -m agentark.stage 07_policy student=llama-small policy.beta=0.01 out=data/students/llama-small/try": (
        "test_one_line.py::test_numbers_are_read_in_every_yaml_form"
    ),
    "python -m agentark.stage choices/plan scale=full out=reports/plan-full.csv": (
        "test_plan.py::test_a_plan_without_gpu_is_assumed_throughout_and_has_every_stage"
    ),
    "python -m agentark.stage choices/plan scale=full card=H100 replies=high out=reports/plan-full.csv": (
        "test_plan.py::test_a_plan_without_gpu_is_assumed_throughout_and_has_every_stage"
    ),
    "python -m agentark.stage choices/plan scale=small_cpu out=reports/plan-small.csv": (
        "test_plan_cores.py::test_a_cpu_scale_plan_lists_all_stages_in_core_hours"
    ),
    "python -m agentark.stage paper/judge marker=vllm:Qwen/Qwen2.5-72B-Instruct": (
        "test_judge.py::test_every_pair_is_judged_in_both_orders_and_malformed_replies_are_skipped"
    ),
    **dict.fromkeys(
        [f"RAY_ADDRESS=head:6379 python -m agentark.stage.pipeline {name}" for name in ("grid", "ablations")],
        "test_cluster.py::test_pipeline_stages_run_as_ray_tasks",
    ),
    "python -m agentark.engines.store data/store": (
        "test_store.py::test_replies_are_listed_and_removed_by_search_words"
    ),
    'python -m agentark.engines.store data/store "bad gateway" --remove': (
        "test_store.py::test_replies_are_listed_and_removed_by_search_words"
    ),
    "python -m agentark.stage 02_checkpoint name=coder source=models/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf "
    "out=data/models/coder": "test_your_own.py::test_the_commands_of_the_page_produce_a_report",
    "python -m agentark.models.int8 data/models/coder data/models/coder-int8": (
        "test_int8.py::test_a_folder_without_a_checkpoint_is_refused_and_nothing_is_written"
    ),
    "OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind PYTHONPATH=. .venv-vllm/bin/python "
    "-m agentark.engines.serve data/models/coder-int8 8000 --window 4096": (
        "test_conformance.py::test_a_greedy_debate_is_identical_with_every_engine"
    ),
    **dict.fromkeys(commands([YOUR_OWN]), "test_your_own.py::test_the_commands_of_the_page_produce_a_report"),
    "make serve MODEL=data/mine/models/smollm2 PORT=8000": MAKE,
    **dict.fromkeys(
        (f"hf download Qwen/Qwen2.5-Coder-{size}B-Instruct-GGUF qwen2.5-coder-{size.lower()}b-instruct-q4_k_m.gguf "
         "--local-dir models" for size in ("1.5", "0.5")),
        "test_settings.py::test_scale_small_cpu_uses_the_files_that_its_page_downloads",
    ),
    **dict.fromkeys(
        ("python -m agentark.stage --scale small_cpu small/given",
         "python -m agentark.stage --scale small_cpu leaderboard/method setting=small method=rsft out=data/leaderboard/small/rsft",
         "python -m agentark.stage --scale small_cpu small/methods"),
        "test_small.py::test_methods_of_the_leaderboard_train_on_its_debates",
    ),
    "dvc repro -s notebooks/leaderboard/dvc.yaml:homogeneous_method@agreed": (
        "test_leaderboard.py::test_the_method_added_in_the_docs_is_scored"
    ),
    "pip install -e .[cluster]": "test_cluster.py::test_a_debate_with_ray_equals_one_without",
    "python -m agentark.stage 03_debate teacher=ray:data/models/teacher out=data/debates/try": (
        "test_cluster.py::test_a_debate_with_ray_equals_one_without"
    ),
    "pip install xllamacpp gguf": "test_llama_cpp.py::test_debate_runs_in_worker_processes_and_resumes_from_the_store",
    "pip install -e .[gpu,cluster]": "test_versions.py::test_the_gpu_extra_resolves_together_with_the_lock",
    **dict.fromkeys(
        ("make study", "make test", "make lab", "make plan", "make grid",
         "make serve MODEL=data/models/teacher PORT=8000"), MAKE,
    ),
}  # fmt: skip
RUN = [command for command, how in COMMANDS.items() if isinstance(how, list)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A small copy of the project with questions, committed, and a user's own questions."""
    few = {"train": 8, "validation": 2, "test": 4, "test_other": 1, "test_hard": 2}
    params = shrunk(read_params(PROJECT / "params.yaml"), SMALL | {"questions": few})
    params = json.loads(json.dumps(params))  # no shared objects: YAML writes them as aliases, which DVC does not set
    folder = copy_of_project(tmp_path_factory.mktemp("docs"), params)
    rows = [{"question": f"What is {n} times 3?", "answer": 3 * n} for n in range(150)]
    (folder / "my_questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call(folder, "dvc", "repro", "--quiet", "questions")
    call(folder, "git", "add", "--all")
    call(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "questions")
    return folder


def test_the_readme_is_short_and_starts_with_a_command():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES
    assert lines.index("```bash") + 2 <= FIRST_COMMAND


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in (link for link in LINK.findall(text) if not link.startswith("http")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_every_command_is_tested_and_every_named_test_exists():
    assert sorted(set(commands(PAGES))) == sorted(COMMANDS)
    for how in (how for how in COMMANDS.values() if isinstance(how, str) and "::" in how):
        file, _, name = how.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, how


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if how == MAKE])
def test_documented_targets_exist(command):
    subprocess.run([*command.split(), "--dry-run"], cwd=PROJECT, check=True, capture_output=True)


def test_every_target_named_in_a_page_exists():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for page in LINKED:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, f"{page.name}: {named - targets}"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m agentark.stage ")])
def test_parameters_of_documented_stages_exist_in_the_notebook(command):
    name, *pairs = re.sub(r"--scale \w+ ", "", command).split()[3:]
    given = dict(pair.split("=", 1) for pair in pairs)
    resolve(PROJECT / "notebooks" / f"{name}.ipynb", read_params(PROJECT / "params.yaml"), given)


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if how == LIST])
def test_documented_pipelines_are_read_by_dvc(project, command):
    assert call(project, "dvc", "stage", "list", "--name-only", command.split()[-1]).stdout


@pytest.mark.parametrize("command", RUN)
def test_documented_commands_run(project, command):
    call(project, *command.replace("python", sys.executable, 1).split(), *COMMANDS[command])
    if "-S" in command:
        params = yaml.safe_load((project / "params.yaml").read_text())
        assert set_value(command, params) == command.partition("=")[2]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "-S" in c])
def test_documented_parameters_exist(command):
    assert set_value(command, read_params(PROJECT / "params.yaml")) != command.partition("=")[2]


def set_value(command: str, params: dict) -> str:
    """The value in `params` that a command sets."""
    section, _, name = command.split()[-1].partition("=")[0].partition(".")
    return str(params[section][name])


def test_readme_example_prints_a_debate_like_the_one_shown(project):
    (code,), (shown,) = blocks(README, "python"), blocks(README, "text")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environment(project), capture_output=True, text=True, check=True
    )
    first, *rest = done.stdout.splitlines()
    assert first == shown.splitlines()[0]
    assert [line.partition(":")[0] for line in rest[:5]] == [f"round 1 agent {i}" for i in range(1, 6)]
    assert "agent 0: " in rest[-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_imports_exist(page):
    for block in blocks(page, "python"):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), str(page), "exec"), {})


def test_documented_digest_is_the_digest_of_the_teacher():
    teacher = PROJECT / "data" / "models" / "teacher"
    assert f"#teacher@{digest(teacher)[:8]} " in (PROJECT / "docs" / "engines.md").read_text(encoding="utf-8")


def test_readme_table_is_generated_from_the_scores():
    rows = summary.main_results(summary.read(PROJECT / "reports" / "scores.csv"))
    assert (
        f"<!-- results -->\n{summary.results(rows, PROJECT / 'reports' / 'findings.md')}<!-- /results -->"
        in README.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    ("page", "schema"),
    [("results.md", schemas.Score)]
    + [("data-flow.md", getattr(schemas, name)) for name in ("Question", "Quantity", "CheckedTrace", "Trajectory")]
    + [("data-flow.md", getattr(schemas, name)) for name in ("Seconds", "Prediction")],
)
def test_every_column_is_documented(page, schema):
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    missing = [name for name in schema.model_fields if f"`{name}`" not in text]
    assert not missing


def test_pre_commit_hooks_are_the_checks_of_make_lint():
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "lint"], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    lint = recipe.stdout.splitlines()[-len(hooks) :]
    for hook, line in zip(hooks, lint, strict=True):
        assert line.startswith(hook["entry"].removesuffix(" --force-exclude"))
