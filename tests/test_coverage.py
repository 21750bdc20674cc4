"""The list of the paper's tables and figures, and the pages that it links to."""

import re
from urllib.parse import unquote

import pytest

from agentark import root
from agentark.paper.coverage import ITEMS

REPORTS = root() / "reports"
PAGES = ("experiments.html", "claims.html")


def anchors(page) -> set[str]:
    return {unquote(a) for a in re.findall(r'<h[12] id="([^"]+)"', page.read_text())}


def test_every_table_and_figure_of_the_paper_is_listed_once():
    expected = {f"Table {n}" for n in range(1, 14)} | {f"Figure {n}" for n in range(3, 11)}
    names = [item.item for item in ITEMS]
    assert set(names) == expected and len(names) == len(expected)


def test_every_item_has_a_counterpart_or_a_reason():
    assert all(item.anchor or item.reason for item in ITEMS)


def test_items_and_headings_of_the_page_match():
    """Every counterpart has a heading, every heading on a table or figure has an item, and it names its items."""
    headings = {a for a in anchors(REPORTS / "experiments.html") if a.startswith(("Table", "Figure"))}
    assert {item.anchor for item in ITEMS if item.anchor} == headings
    for item in filter(lambda item: item.anchor, ITEMS):
        kind, number = item.item.split()
        listed = re.search(rf"{kind}s?-([^:A-Z]*)", item.anchor)[1].replace("to", "-to-")
        numbers = [int(n) for n in re.findall(r"\d+", listed)]
        span = range(min(numbers), max(numbers) + 1) if "to" in listed else numbers
        assert int(number) in span, item.item


@pytest.mark.parametrize("name", PAGES)
def test_every_link_has_a_target(name):
    page = REPORTS / name
    links = {unquote(link) for link in re.findall(r'href="([^"]+)"', page.read_text())}
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link
