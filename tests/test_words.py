"""Wording: code and prose use one standard term for each concept."""

import ast
import io
import json
import re
import tokenize
from pathlib import Path

import pytest

from agentark import root
from agentark.distill.once import PACKAGE

# Terms that were replaced by standard ones: identifiers in code, and phrases in prose.
NAMES = {"hold", "converse", "distil", "teach", "Speakers", "Room", "apart", "imitation", "judging", "practice",
         "practise", "freeze_senses", "headline", "told", "said", "spoken", "heard", "warmth"}  # fmt: skip
WORDS = (
    r"\b(whereof|thereof|that which|is to be had|are to be had|is told|are told|personified|"
    r"hold a debate|held debates?|teacher, debate is)\b"
)
DOCUMENTS = ["README.md", *(str(p.relative_to(root())) for p in (root() / "docs").glob("*.md"))]


def names(source: str) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def cells(notebook: Path, kind: str) -> str:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in found if cell["cell_type"] == kind)


SOURCES = sorted([*PACKAGE.rglob("*.py"), *(root() / "tests").rglob("*.py")])


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(root())))
def test_code_and_docstrings_use_standard_terms(file):
    source = file.read_text(encoding="utf-8")
    assert not names(source) & NAMES
    prose = "\n".join(
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    )
    assert not re.findall(WORDS, prose)


@pytest.mark.parametrize("notebook", sorted((root() / "notebooks").rglob("*.ipynb")), ids=lambda f: f.stem)
def test_notebooks_use_standard_terms(notebook):
    assert not names(cells(notebook, "code")) & NAMES
    assert not re.findall(WORDS, cells(notebook, "markdown"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_use_standard_terms(document):
    assert not re.findall(WORDS, (root() / document).read_text(encoding="utf-8"))
