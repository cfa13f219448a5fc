"""The documentation as a site: it builds strictly and offline, and its pages load nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, ROOT
from tests.support.ports import free_port
from tests.support.waiting import eventually

ELSEWHERE = re.compile(r"^(https?:)?//", re.I)
_NOWHERE = "http://127.0.0.1:9"
OFFLINE = {"PATH": os.environ["PATH"], "http_proxy": _NOWHERE, "https_proxy": _NOWHERE}
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
"""What a browser fetches by itself when it shows a page. A plain link is followed by people only."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Whatever it would fetch while it is built, it would ask of a proxy that is not there."""
    folder = tmp_path_factory.mktemp("site")
    docs = [sys.executable, "-m", "controlplane.cli", "dev", "docs", "--to", str(folder)]
    done = subprocess.run(docs, cwd=ROOT, env=OFFLINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=root,
        env=OFFLINE | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


class Loads(HTMLParser):
    """The addresses that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADED.get(tag, ""))
        if address:
            self.found.append(address)


def loads(page: Path) -> list[str]:
    parser = Loads()
    parser.feed(page.read_text())
    return parser.found


def test_every_page_is_in_the_site(site: Path) -> None:
    """Each page of docs/ has become one, with its own title."""
    built = {page.parent.relative_to(site).as_posix() for page in site.rglob("index.html")}

    for page in DOCS.rglob("*.md"):
        place = page.relative_to(DOCS).with_suffix("")
        assert (place.parent if place.name == "index" else place).as_posix() in built


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and images are in the site itself."""
    foreign = {str(page): [each for each in loads(page) if ELSEWHERE.match(each)] for page in site.rglob("*.html")}

    assert {page: found for page, found in foreign.items() if found} == {}
    assert any(loads(page) for page in site.rglob("*.html"))


def test_no_page_makes_the_theme_fetch_anything(site: Path) -> None:
    """The theme's own script fetches a library for diagrams, and figures of a repository, where a page has such."""
    pages = [page.read_text() for page in site.rglob("*.html")]

    assert [page for page in pages if 'class="mermaid"' in page or 'data-md-component="source"' in page] == []


def test_a_style_loads_nothing_from_elsewhere(site: Path) -> None:
    """No style sheet imports another one, a font or an image from another host."""
    sheets = [*site.rglob("*.css"), *site.rglob("*.html")]

    assert [
        str(sheet) for sheet in sheets if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text())
    ] == []


def test_the_site_can_be_searched_without_a_server_elsewhere(site: Path) -> None:
    """The index of the search is part of the site, and knows the glossary."""
    assert "Local fallback limit" in (site / "search" / "search_index.json").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """The documentation's sources, to be spoilt."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    yield tmp_path


def test_generated_pages_are_in_the_menu(copy: Path) -> None:
    """The reference is listed in its own order, though no page of it is named in mkdocs.yml."""
    (copy / "docs" / "reference").mkdir(exist_ok=True)
    for page in ("zebra", "metrics", "configuration"):
        (copy / "docs" / "reference" / f"{page}.md").write_text(f"# The {page}\n")

    done = build(copy, copy / "site")

    assert done.returncode == 0, done.stderr
    page = (copy / "site" / "index.html").read_text()
    places = [page.find(f'href="reference/{name}/"') for name in ("configuration", "metrics", "zebra")]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("guide.md", "[gone](no-such-page.md)"),
        ("guide.md", "[gone](glossary.md#no-such-part)"),
        ("left-out.md", "# A page outside the menu"),
    ],
)
def test_a_broken_link_or_a_page_outside_the_menu_fails(copy: Path, page: str, text: str) -> None:
    """Strict means strict: what a reader would stumble over ends the build."""
    with (copy / "docs" / page).open("a") as file:
        file.write(f"\n\n{text}\n")

    assert build(copy, copy / "site").returncode != 0


def test_the_site_is_served_on_loopback(tmp_path: Path) -> None:
    """`mgw dev docs --serve` builds it and serves it to this machine alone."""
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "controlplane.cli", "dev", "docs", "--serve", "--address", address]
    with (tmp_path / "log").open("w") as log:
        serving = subprocess.Popen(words, cwd=ROOT, env=OFFLINE, stdout=log, stderr=log)
    try:
        assert eventually(lambda: "Media Gateway" in page_at(f"http://{address}/"), 30), (tmp_path / "log").read_text()
    finally:
        serving.terminate()
        serving.wait(10)


def page_at(url: str) -> str:
    """The page; nothing while nobody serves it."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""
