"""Executed notebooks as web pages: one style, no scripts, no external resources, no time or place of the run."""

import re

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 Georgia, 'DejaVu Serif', serif; color: #1c1c1c; background: #fff; margin: 2rem auto;
       max-width: 58rem; padding: 0 1.2rem }
h1, h2, h3, th, figcaption { font-family: 'Helvetica Neue', 'DejaVu Sans', sans-serif; line-height: 1.25 }
h1 { font-size: 1.9rem } h2 { font-size: 1.35rem; margin-top: 2.4rem; border-bottom: 1px solid #ddd }
table { border: 0; border-collapse: collapse; font-size: .85rem; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; text-align: right; vertical-align: top; border: 0; border-bottom: 1px solid #e6e6e6 }
tbody th, th:first-child, td:first-child { text-align: left }
pre { background: #f6f6f4; padding: .7rem .9rem; overflow-x: auto; font-size: .82rem; line-height: 1.4 }
.output_stream pre { white-space: pre-wrap }
img { max-width: 100%; height: auto }
figure { margin: 1rem 0 } figcaption { font-size: .85rem; color: #444 }
a.anchor-link, .jp-InputPrompt, .jp-OutputPrompt, .prompt { display: none }
.highlight .k, .highlight .kn { color: #00558b } .highlight .s1, .highlight .s2 { color: #7a3e00 }
.highlight .c1 { color: #5c6b5c; font-style: italic }
"""


PICTURE = re.compile(r"""<img\b[^>]*?\balt=(["'])(.+?)\1[^>]*>""")


def page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def notebook_page(notebook: nbformat.NotebookNode, places: dict[str, str] | None = None, code: bool = True) -> str:
    """The page of an executed notebook, with its code or, for the report, without it.

    `places` maps the temporary paths of the run to those of the published outputs. Timestamps, execution counts,
    warnings and papermill's metadata are removed, so that equal results give equal bytes.
    """
    notebook = nbformat.from_dict(notebook)
    notebook.metadata.pop("papermill", None)
    cells: list[nbformat.NotebookNode] = []
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace("# Parameters", "# as run")
            for temporary, place in (places or {}).items():
                cell.source = cell.source.replace(temporary, place)
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                alternative = output.get("metadata", {}).get("image/png", {}).get("alt")
                output["metadata"] = {"image/png": {"alt": alternative}} if alternative else {}
                if output.output_type == "execute_result":
                    output.execution_count = None
        cell.id = f"cell-{len(cells)}"
        cells.append(cell)
    notebook.cells = cells
    # A cell's printed text is split into a number of pieces that varies between runs.
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
    exporter = HTMLExporter(template_name="basic", exclude_input=not code, embed_images=True)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r'(<div[^>]*?) id="cell-id=[^"]*"', r"\1", body)
    body = PICTURE.sub(lambda found: f"<figure>{found[0]}<figcaption>{found[2]}</figcaption></figure>", body)
    heading = re.search(r"^# (.+)", "\n".join(c.source for c in cells if c.cell_type == "markdown"), re.M)
    return page(heading[1] if heading else "AgentArk", body)
