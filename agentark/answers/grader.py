"""Mathematical equality of two answers by math-verify, in a separate process.

Parsing and comparing a model's output can take unbounded time and memory, and math-verify's own timeout works only in a
main thread. So both run in one persistent worker process, which exits if a pair takes too long; the next pair starts a
new one. The worker never executes text as code, and it can neither write files nor start processes.

Run as a program, this file is the worker: it reads pairs as lines of JSON from standard input and writes verdicts as
lines. It must not import agentark, so that it can start from its path alone.
"""

import atexit
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal, cast

Verdict = Literal["equal", "different", "unreadable gold", "unreadable prediction"]

SECONDS = 3  # CPU time per pair, so that a busy machine changes no verdict; ordinary pairs take under one second
PATIENCE = 25 * SECONDS  # wall-clock seconds, in case the worker gets no CPU time
MEMORY = 4 << 30  # bytes

_lock = threading.Lock()
_worker: subprocess.Popen | None = None


def compare(gold: list[str], prediction: list[str]) -> Verdict | None:
    """The verdict on two final answers in LaTeX or plain numbers; None if the worker exceeds its time or memory limit.

    Safe to call from several threads and from forked processes. Raises StudyError if the worker does not start.
    """
    with _lock:
        try:
            pairs, verdicts = _pipes(_started())
            pairs.write(json.dumps([gold, prediction]).encode() + b"\n")
            verdict = cast(Verdict | Literal[""], verdicts.readline().decode().strip())
        except BrokenPipeError:  # the worker died after its last verdict
            verdict = ""
        except BaseException:  # after an interrupt here, the next call would read this pair's verdict
            stop()
            raise
        if not verdict:
            stop()
        return verdict or None


def stop() -> None:
    """End the worker, if there is one."""
    global _worker
    if _worker is not None:
        _worker.kill()
        _worker.communicate()
        _worker = None


def _pipes(worker: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """The worker's standard input and output."""
    assert worker.stdin and worker.stdout
    return worker.stdin, worker.stdout


def _started() -> subprocess.Popen:
    """The running worker, or a new one if there is none or it has died."""
    global _worker
    if _worker is not None and _worker.poll() is not None:
        stop()
    if _worker is None:
        _worker = subprocess.Popen(
            [sys.executable, "-P", "-B", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # so that Ctrl-C does not reach the worker
            env=os.environ | {"PYTHONHASHSEED": "0"},  # sympy's term order, and so its verdicts, depend on hashes
        )
        if _pipes(_worker)[1].readline() != b"ready\n":
            stop()
            from agentark import StudyError  # imported here, since the worker must start without agentark

            raise StudyError(f"{__file__} does not start; run it with python -P to see why")
    return _worker


def _forget() -> None:
    """Drop the parent's worker after a fork, since its pipes must not be shared; the next pair starts a new one."""
    global _lock, _worker
    _lock = threading.Lock()
    if _worker is not None:
        for pipe in _pipes(_worker):
            pipe.close()
        _worker.returncode = 0  # the parent's child: do not wait for it here
        _worker = None


os.register_at_fork(after_in_child=_forget)
atexit.register(stop)


# Conjunctions between ranges: "x < -1 or x > 2", "x > -1 and x < 2"
OR = re.compile(r"\\text\w*\s*\{\s*or\s*\}|\bor\b|\\lor\b|\\vee\b")
AND = re.compile(r"\\text\w*\s*\{\s*and\s*\}|\band\b|\\land\b|\\wedge\b")
BUILDER = re.compile(  # "{x | x < -1}", "\\left\\{x \\in \\mathbb{R} : x > 3\\right\\}"
    r"(?:\\left)?\\?\{\s*[a-z]\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|ℝ)\s*)?(?:\\mid|\||:|\\colon)(.*?)(?:\\right)?\\?\}",
    re.DOTALL,
)
RANGE = re.compile(r"[<>≤≥]|\\(?:leq?|geq?|lt|gt|neq?|infty)\b")
SAME = 1e-5  # maximal relative difference between a decimal and the number that it rounds
POINTS = ("0.7310585", "1.6180341", "2.9155117", "-0.8337002", "-2.2360691")  # shifted by 1/7 per further symbol


def _ranges(text: str, parse: Callable[[str], list]) -> list:
    """Ranges joined by "or" or "and" as a list of one set, else []. math-verify itself reads only single ranges."""
    import sympy

    text = text.strip("$ ")
    if built := BUILDER.fullmatch(text):
        text = built[1]
    joint, join = (OR, sympy.Union) if OR.search(text) else (AND, sympy.Intersection)
    pieces = joint.split(text)
    if (len(pieces) < 2 and not built) or not all(RANGE.search(piece) for piece in pieces):
        return []
    found = []
    for piece in pieces:
        meaning = next(iter(parse(f"${piece.strip(' ,$')}$")), None)
        if isinstance(meaning, sympy.Set):
            found.append(meaning)
        elif isinstance(meaning, sympy.Basic) and len(meaning.free_symbols) == 1:
            try:
                found.append(meaning.as_set())
            except (AttributeError, NotImplementedError, TypeError, ValueError):
                return []
        else:
            return []
    return [join(*found)]


def _values(meaning: object) -> list:
    """The expressions to compare: a formula itself, an equation's right side, or the members of a tuple, an interval or
    a finite set."""
    import sympy

    if isinstance(meaning, sympy.Eq):
        return _values(meaning.rhs)
    if isinstance(meaning, sympy.Tuple):
        return [value for member in meaning.args for value in _values(member)]
    if isinstance(meaning, sympy.Interval):
        return _values(meaning.start) + _values(meaning.end)
    if isinstance(meaning, sympy.FiniteSet):
        members = [value for member in meaning.args for value in _values(member)]
        return sorted(members, key=lambda value: sympy.default_sort_key(value.evalf()))
    return [meaning] if isinstance(meaning, sympy.Expr) else []


def _samples(one: Any, other: Any) -> Iterator[tuple]:
    """The values of two sympy formulas at a few points. Pairs that are not finite numbers are skipped."""
    import sympy

    costly = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Derivative, sympy.Limit, sympy.core.function.AppliedUndef)
    percent = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
    if any(meaning.has(*costly) or percent in meaning.args for meaning in (one, other)):
        return
    if one.free_symbols != other.free_symbols:
        return
    symbols = sorted(one.free_symbols, key=str)
    for point in POINTS if symbols else POINTS[:1]:
        at = {symbol: sympy.Rational(point) + sympy.Rational(i, 7) for i, symbol in enumerate(symbols)}
        pair = tuple(meaning.subs(at).doit().evalf(30) for meaning in (one, other))
        if all(value.is_comparable for value in pair):
            yield pair


def _differ_exactly(one: object, other: object) -> bool:
    """Whether two formulas differ although math-verify, which rounds, finds them equal (huggingface/Math-Verify#14)."""
    import sympy

    first, second = _values(one), _values(other)
    if len(first) != len(second):
        return False
    try:
        for both in zip(first, second, strict=True):
            tolerance = SAME if any(meaning.has(sympy.Float) for meaning in both) else 1e-20
            if any(abs(a - b) > tolerance * max(abs(a), abs(b)) for a, b in _samples(*both)):
                return True
        return False
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError, RecursionError):
        return False


def _agree(one: object, other: object) -> bool:
    """Whether two formulas in the same symbols are numerically equal, for pairs that sympy cannot prove equal."""
    import sympy

    if not all(isinstance(meaning, sympy.Expr) and meaning.free_symbols for meaning in (one, other)):
        return False
    try:
        pairs = list(_samples(one, other))
        return len(pairs) > 1 and all(abs(a - b) <= 1e-12 * max(abs(a), abs(b)) for a, b in pairs)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError, RecursionError):
        return False


def _serve() -> None:
    """The worker's loop: read a pair, write its verdict, until the input ends."""
    import resource
    import signal

    import sympy
    from math_verify import parse, parser, verify
    from sympy.core.random import seed
    from sympy.parsing import parse_expr, sympy_parser

    def read(spellings: list[str]) -> list:
        meanings = [meaning for text in spellings for meaning in parse(text, parsing_timeout=None)]
        return _ranges(spellings[0], lambda text: parse(text, parsing_timeout=None)) + meanings

    def judge(gold: list[str], prediction: list[str]) -> Verdict:
        seed(0)  # sympy tests equalities at random points
        truth = read(gold)
        if not truth:
            return "unreadable gold"
        answer = read(prediction)
        if not answer:
            return "unreadable prediction"
        for one, other in itertools.product(truth, answer):
            same = verify(one, other, allow_set_relation_comp=True, timeout_seconds=None)
            if (not _differ_exactly(one, other)) if same else _agree(one, other):
                return "equal"
        return "different"

    def arithmetic(text: str, *rest, **options) -> sympy.Basic:
        if not re.fullmatch(r"[\d\s.+\-*/×÷^()]*", text):
            raise ValueError(f"not executed as code: {text!r}")
        return parse_expr(text, *rest, **options)

    def forbid(event: str, arguments: tuple) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        acts = event.startswith(("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "webbrowser."))
        if writes or (acts and event not in ("os.listdir", "os.scandir")):
            raise PermissionError(f"{event} is forbidden in the grader")

    judge(["$x^2 - 1$"], ["$(x - 1)(x + 1)$"])  # trigger sympy's lazy imports
    parser.parse_expr = sympy_parser.parse_expr = arithmetic  # the original evaluates text as Python, also for sympify
    sys.addaudithook(forbid)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(name, signal.SIG_DFL)  # ends the process even during a long computation in C
    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        verdict = judge(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(verdict, flush=True)


if __name__ == "__main__":
    _serve()
