"""Trainings that a killed and restarted run does not repeat: `launch.each(Once(policy.train), calls)`."""

import json
from collections.abc import Callable, Sequence
from functools import update_wrapper
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib

from agentark import root
from agentark.distill.students import LIBRARIES
from agentark.engines.checkpoint import digest
from agentark.notebook import staged

MADE = "training.jsonl"  # not .json, which would count as a part of the model itself


class Once:
    """`train(out=..., **call)`, run only if `out` does not hold the training of this very call.

    `out` appears whole, at the end of the training. It then holds the result, which has to be JSON, beside a digest of
    the call: its arguments (of folders, the models in them), the modules that trainings are made of, `code` among them,
    the libraries.
    """

    def __init__(self, train: Callable, code: Sequence[Path] = ()):
        update_wrapper(self, train)  # launch.each looks at its parameters and its name
        self.train, self.code = train, code

    def __call__(self, out: Path, **call: Any) -> Any:
        made, wanted = out / MADE, self.digest(call)
        if made.is_file() and (told := json.loads(made.read_text()))["call"] == wanted:
            return told["result"]
        with staged([out]) as (stand_in,):
            result = self.train(out=stand_in, **call)
            (stand_in / MADE).write_text(json.dumps({"call": wanted, "result": result}) + "\n")
        return result

    def digest(self, call: dict[str, Any]) -> str:
        given = {name: digest(value) if isinstance(value, Path) else value for name, value in call.items()}
        package = root() / "agentark"
        code = [
            p.read_bytes() for p in (*sorted((package / "distill").glob("*.py")), package / "models.py", *self.code)
        ]
        return joblib.hash((self.train.__module__, given, code, [version(name) for name in LIBRARIES]))
