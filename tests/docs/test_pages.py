"""Pages keep their form: decisions have their four parts, links lead somewhere, and paths that are named exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, ROOT, blocks, name, pages

DECISIONS = sorted((DOCS / "decisions").glob("2*.md"))
PARTS = ["Context", "Decision", "Alternatives", "Status"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
_TOP = (
    "controlplane",
    "authz_service",
    "ratelimit_service",
    "service_kit",
    "envoy_api",
    "envoy",
    "deploy",
    "tests",
    "docs",
)


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_has_its_four_parts(page: Path) -> None:
    """Context, decision, alternatives and status, in this order, and the status has a date."""
    text = page.read_text()

    assert re.findall(r"^## (.*)$", text, re.M) == PARTS
    assert re.search(r"^## Status\n\n(Accepted|Superseded by \[.+\]\(.+\)), 20\d\d-\d\d-\d\d\.", text, re.M)


def test_the_index_lists_every_decision_by_its_title() -> None:
    """With its date and its status."""
    index = (DOCS / "decisions" / "index.md").read_text()

    for page in DECISIONS:
        listed = re.search(rf"^\| {page.name[:10]} \| \[(.+)\]\({re.escape(page.name)}\) \| (\w+)", index, re.M)
        assert listed, f"{page.name} is not in the index"
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert re.sub(r" \(`.*`\)$", "", title) == listed[1]
        assert page.read_text().partition("## Status\n\n")[2].lower().startswith(listed[2])


@pytest.mark.parametrize("page", pages(), ids=name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    """Also from pages that are not part of the site."""
    targets = [target for target in _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))) if "://" not in target]

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_a_path_that_is_named_exists(page: Path) -> None:
    """A page that names a file of the repository names one that is there."""
    named = [path for path in _PATH.findall(prose(page)) if path.split("/")[0] in _TOP]

    assert [path for path in named if not (ROOT / path).exists()] == []


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    text = page.read_text()
    for block in blocks(text):
        text = text.replace(block.text, "")
    return text


RETIRED = ("front door", "ceiling", "late charge", "breaker keeper", "breaker board", "loud caller", "settle")
"""Private words that have a standard one: docs/glossary.md has those."""


@pytest.mark.parametrize("page", [page for page in pages() if page.name != "performance.md"], ids=name)
def test_a_page_uses_no_word_that_was_retired(page: Path) -> None:
    """Names in code stay what they are; prose says it in the glossary's words."""
    said = re.sub(r"`[^`]*`", "", prose(page)).lower()

    assert [word for word in RETIRED if word in said] == []
