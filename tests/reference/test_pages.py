"""The generated pages are current, and miss nothing that they are the reference of."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from controlplane.cli.app import VERBS
from docs.generate.pages import PAGES, stale

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
VARIABLE = re.compile(
    r"\b(?:MGW|API_GATEWAY|AUTHZ)_[A-Z][A-Z_]*[A-Z]\b|\b[A-Z]+_SERVICE_URL\b|\b(?:JWT_SECRET|REDIS_URL)\b"
)
NO_VARIABLES = re.compile(r"^AUTHZ_(POLICY|CLUSTER|TIMEOUT_SECONDS)$|^MGW_(EXTRA|STATE)$")
"""Names in the code that only look like one."""


def test_every_page_is_current() -> None:
    """What the code says now is what the pages say: `./mgw dev reference` makes them."""
    assert list(stale(ROOT)) == []


def test_nothing_else_stands_there() -> None:
    """A page that nothing makes would grow old."""
    files = {f"docs/reference/{path.name}" for path in REFERENCE.iterdir()}

    assert files == {name for name in PAGES if name.startswith("docs/reference/")}


def test_every_environment_variable_is_told() -> None:
    """Each that the code, the default document or the bootstrap names."""
    told = set(VARIABLE.findall((REFERENCE / "environment.md").read_text()))
    places = (
        "controlplane",
        "authz_service",
        "ratelimit_service",
        "service_kit",
        "envoy",
        "deploy",
        "mgw",
        "tests/conftest.py",
        "tests/controlplane/conftest.py",
    )
    listed = subprocess.run(["git", "ls-files", *places], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named: dict[str, str] = {}
    for name in listed.split():
        if not name.endswith((".js", ".css", ".json")):
            text = (ROOT / name).read_text(errors="replace")
            named |= {each: name for each in VARIABLE.findall(text) if not NO_VARIABLES.match(each)}

    missing = {each: where for each, where in named.items() if each not in told and not each.startswith("MGW_JWKS")}
    assert missing == {}


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"breakers", "dev"}))
def test_every_verb_is_told(verb: str) -> None:
    """With its options."""
    assert f"## `mgw {verb}`" in (REFERENCE / "commands.md").read_text()


def test_the_api_is_told() -> None:
    """Every path of the description has a heading."""
    page = (REFERENCE / "api.md").read_text()
    for path, operations in json.loads((REFERENCE / "openapi.json").read_text())["paths"].items():
        for method in operations:
            assert f"## `{method.upper()} {path}`" in page
