import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentark.answers import grader, is_correct
from agentark.parallel import run_all

PAIRS = [(rf"\sqrt{{{a * a}}} + {b}", rf"{a} + \sqrt{{{b * b}}}", True) for a in (3, 5, 7) for b in (2, 4, 9)] + [
    (rf"x^{n} + 1", f"x^{n + 1} + 1", False) for n in range(2, 11)
]
# Formulas whose evaluation takes practically forever; the worker's time limit ends each
UNBOUNDED = {
    "power tower": "$9^{9^{9^{9}}}$",
    "factorial": "$99999999!$",
    "determinant": r"$\det \begin{pmatrix}"
    + r"\\".join("&".join(f"x_{{{i}{j}}}" for j in range(15)) for i in range(15))
    + r"\end{pmatrix}$",
    "sum": r"$\sum_{k=1}^{10000000000} \frac{1}{k^{3}}$",
}
# Texts that take very long to read without limits on length and nesting
LONG = {
    "digits": "9" * 100_000,
    "letters": "a " * 50_000,
    "dollars": "$" * 100_000,
    "boxes": "\\boxed{" * 14_000,
    "brackets": "\\[" * 50_000,
    "answers": "the answer is " * 7_000,
    "stars": "*" * 100_000,
    "line ends": "\n" * 100_000,
    "commas": "1," * 50_000,
    "fractions": "$" + r"\frac{1}{" * 800 + "2" + "}" * 800 + "$",
    "matrix": r"$\begin{pmatrix}" + r"\\".join("&".join("x" * 40) for _ in range(40)) + r"\end{pmatrix}$",
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_formula_over_the_time_limit_is_wrong_and_the_next_one_is_graded(name):
    program = (
        "import sys; from agentark.answers import is_correct; "
        r"print(is_correct(sys.argv[1], '15'), is_correct(r'\sqrt{225}', '15'))"
    )
    command = [sys.executable, "-c", program, UNBOUNDED[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "False True\n", done.stderr


def test_long_and_deeply_nested_texts_are_graded_in_bounded_time():
    program = (
        "import json, sys; from agentark.answers import is_correct; "
        "print(any(is_correct(text, '15', kind) for text in json.load(sys.stdin)"
        " for kind in ('number', 'latex', 'choice', 'text')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(list(LONG.values())),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_code_in_a_prediction_is_never_executed(kind, tmp_path):
    trap = tmp_path / "trap"  # the path contains numbers, which must not count as the answer
    touch = f"__import__('os').system('touch {trap}')"
    codes = [
        touch,
        f"open('{trap}', 'w')",
        f'exec("{touch}")',
        f"[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', '{trap}'])",
        f"Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('{trap}', 'w')",
        f"(lambda: {touch})()",
        f"1 + {touch} * 2",
        touch.replace("_", r"\_"),
    ]
    wrappers = ["{}", "${}$", r"\boxed{{{}}}", r"$\text{{{}}}$", r"$\operatorname{{{}}}(1)$", "answer: {}", "#### {}"]
    for code in codes:
        for wrapper in (*wrappers, r"\[ x_{{{}}} = 1 \]", r"$\sqrt{{{}}}$", r"$\begin{{pmatrix}} {} \end{{pmatrix}}$"):
            assert not is_correct(wrapper.format(code), "271828", kind)
    assert not trap.exists()


def test_the_worker_refuses_code_files_processes_and_sockets(tmp_path):
    program = f"""
import io, json, os, sys
from agentark.answers import grader
sys.stdin = io.StringIO("")
grader._serve()
from sympy import sympify
refused = []
for act in (
    lambda: sympify("__import__('os').getpid()"),
    lambda: open({str(tmp_path / "trap")!r}, "w"),
    lambda: os.system("true"),
    lambda: __import__("socket").socket(),
):
    try:
        act()
    except (ValueError, PermissionError):
        refused.append(True)
print(refused, sympify("2 + 3"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ready\n[True, True, True, True] 5\n", done.stderr
    assert not (tmp_path / "trap").exists()


def verdict(prediction: str, gold: str) -> bool:
    return is_correct(prediction, gold)


def test_verdicts_do_not_mix_between_threads():
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: verdict(*pair[:2]), PAIRS * 8))
    assert found == [right for *_, right in PAIRS * 8]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_verdicts_do_not_mix_between_processes(start):
    assert verdict(r"\sqrt{225}", "15")  # a worker runs when the processes begin
    with ProcessPoolExecutor(2, mp_context=get_context(start)) as pool:
        futures = [pool.submit(verdict, prediction, gold) for prediction, gold, _ in PAIRS]
        assert verdict(r"\sqrt{225}", "15")
        assert [f.result(timeout=120) for f in futures] == [right for *_, right in PAIRS]


def test_parallel_jobs_return_the_right_verdicts(monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    found = run_all(verdict, [dict(prediction=prediction, gold=gold) for prediction, gold, _ in PAIRS])
    assert found == [right for *_, right in PAIRS]


def test_a_killed_worker_is_replaced():
    assert verdict(r"\sqrt{225}", "15")
    os.kill(grader._worker.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert verdict(r"\sqrt{225}", "15")


def test_an_interrupt_leaves_no_stale_verdict():
    program = r"""
import signal
from agentark.answers import is_correct
assert is_correct(r"\sqrt{225}", "15")
signal.setitimer(signal.ITIMER_REAL, 1)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
try:
    is_correct("$9^{9^{9^{9}}}$", "15")
except KeyboardInterrupt:
    print(is_correct(r"\sqrt{225}", "15"), is_correct(r"\sqrt{226}", "15"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True False\n", done.stderr


def test_the_worker_ends_with_its_process():
    program = r"""
from agentark.answers import grader
from agentark.answers import is_correct
assert is_correct(r"\sqrt{225}", "15")
print(grader._worker.pid)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    time.sleep(0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@settings(max_examples=25)
@given(st.integers(-99, 99), st.integers(1, 99), st.integers(1, 9))
def test_an_unreduced_fraction_equals_the_reduced_one(a, b, k):
    assert is_correct(rf"The answer is $\frac{{{a * k}}}{{{b * k}}}$.", rf"\frac{{{a}}}{{{b}}}")
    assert not is_correct(rf"\boxed{{\frac{{{a * k + 1}}}{{{b * k}}}}}", rf"\frac{{{a}}}{{{b}}}")
