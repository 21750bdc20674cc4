"""Executed notebooks as pages: what was run is shown, when and how it was run is not."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from agentark.stage.pages import notebook_page


def printed(*pieces: str, name: str = "stdout") -> list:
    return [new_output("stream", name=name, text=piece) for piece in pieces]


def test_a_page_does_not_show_in_how_many_pieces_its_prints_came():
    whole, parts = (
        notebook_page(
            new_notebook(
                cells=[
                    new_markdown_cell("# Title"),
                    new_code_cell("print(1)", outputs=outputs, execution_count=count),
                ]
            )
        )
        for outputs, count in (
            (printed("one\ntwo\n"), 1),
            ([*printed("one"), *printed("a warning", name="stderr"), *printed("\ntwo\n")], 7),
        )
    )
    assert whole == parts and "one\ntwo" in whole and "<title>Title</title>" in whole and "warning" not in whole


def test_a_page_names_published_places_and_can_leave_out_its_code():
    cell = new_code_cell('# Parameters\nout = "data/.partial-x"', metadata={"tags": ["injected-parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), cell])
    assert "data/x" in notebook_page(notebook, {"data/.partial-x": "data/x"})
    assert "data/" not in notebook_page(notebook, code=False)
