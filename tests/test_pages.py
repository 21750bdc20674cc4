"""Executed notebooks as pages: they show code and outputs, but nothing that differs between equal runs."""

from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from agentark import root
from agentark.report.charts import show
from agentark.stage.pages import notebook_page

PAGES = sorted((root() / "reports").rglob("*.html"))


def stream_outputs(*pieces: str, name: str = "stdout") -> list:
    return [new_output("stream", name=name, text=piece) for piece in pieces]


def test_a_page_does_not_depend_on_how_printed_output_was_chunked():
    single, chunked = (
        notebook_page(
            new_notebook(
                cells=[
                    new_markdown_cell("# Title"),
                    new_code_cell("print(1)", outputs=outputs, execution_count=count),
                ]
            )
        )
        for outputs, count in (
            (stream_outputs("one\ntwo\n"), 1),
            ([*stream_outputs("one"), *stream_outputs("a warning", name="stderr"), *stream_outputs("\ntwo\n")], 7),
        )
    )
    assert single == chunked and "one\ntwo" in single and "<title>Title</title>" in single and "warning" not in single


def test_a_page_shows_final_paths_and_can_omit_its_code():
    cell = new_code_cell('# Parameters\nout = "data/.partial-x"', metadata={"tags": ["injected-parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), cell])
    assert "data/x" in notebook_page(notebook, {"data/.partial-x": "data/x"})
    assert "data/" not in notebook_page(notebook, code=False)


class Pictures(HTMLParser):
    """The alternative texts of a page's pictures ("" if there is none), and its captions."""

    def __init__(self, page: str):
        super().__init__()
        self.alternatives: list[str] = []
        self.captions: list[str] = []
        self.in_caption = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.in_caption = tag == "figcaption"
        if tag == "img":
            self.alternatives.append(dict(attributes).get("alt") or "")

    def handle_data(self, data):
        if self.in_caption:
            self.captions.append(data)
            self.in_caption = False


def test_a_figure_caption_is_its_alternative_text_and_is_shown_below_it():
    caption = 'Gain by method, "PAD" < 3 & more.'
    data, metadata = DisplayFormatter().format(show(plt.figure(), caption))
    shown = new_output("display_data", data={"image/png": data["image/png"]}, metadata=metadata)
    page = Pictures(notebook_page(new_notebook(cells=[new_code_cell("show()", outputs=[shown])])))
    assert page.alternatives == page.captions == [caption]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_picture_of_a_page_has_a_distinct_alternative_text(page: Path):
    alternatives = Pictures(page.read_text()).alternatives
    assert all(len(text) > 20 and "No description" not in text for text in alternatives)
    assert len(set(alternatives)) == len(alternatives)
