"""How the pages are made, kept and found stale; and that they agree with what the processes really say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from authz_service.decision import ErrorCode
from authz_service.metrics import Metrics as AuthzMetrics
from controlplane.api.app import create_app
from controlplane.translate.access_log import FIELDS
from docs.generate import __main__ as command
from docs.generate import errors, log, pages
from docs.generate.configuration import _kinds
from docs.generate.pages import PAGES, stale, write
from ratelimit_service.metrics import Metrics as RatelimitMetrics
from tests.support.configs import ROOT

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture
def two_pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A reference of two pages, with what each of them says."""
    said = {"docs/a.md": "of a: ü\n", "deploy/deep/b.json": "{}\n"}
    monkeypatch.setattr(pages, "PAGES", {name: lambda name=name: said[name] for name in said})
    return said


def test_what_is_written_is_current(tmp_path: Path, two_pages: dict[str, str]) -> None:
    """Each page is written where it belongs, in UTF-8; folders are made."""
    assert list(stale(tmp_path)) == list(two_pages)

    write(tmp_path)

    assert {name: (tmp_path / name).read_bytes().decode() for name in two_pages} == two_pages
    assert list(stale(tmp_path)) == []


def test_a_page_is_stale_when_the_code_says_something_else(tmp_path: Path, two_pages: dict[str, str]) -> None:
    """Or when somebody changed it by hand, or took it away."""
    write(tmp_path)
    two_pages["docs/a.md"] = "of a: now\n"
    assert list(stale(tmp_path)) == ["docs/a.md"]

    write(tmp_path)
    (tmp_path / "deploy/deep/b.json").unlink()

    assert list(stale(tmp_path)) == ["deploy/deep/b.json"]


def test_the_command_writes_or_checks(
    tmp_path: Path, two_pages: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check names each page that is not current, changes none, and fails; where all are, it is silent."""
    monkeypatch.setattr(command, "ROOT", tmp_path)

    assert command.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{name} is not current: run ./mgw dev reference" for name in two_pages
    ]
    assert list(tmp_path.iterdir()) == []
    assert command.main([]) == 0
    assert command.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def exposed(registry: Any) -> set[str]:
    """The metrics of our own as a scraper meets them."""
    found = re.findall(r"^# TYPE (mgw_\S+) ", generate_latest(registry).decode(), re.M)
    return {name for name in found if not name.endswith("_created")}


@pytest.mark.parametrize(
    ("title", "registry"),
    [
        ("Control plane", REGISTRY),
        ("Authz service", AuthzMetrics().registry),
        ("Rate-limit service", RatelimitMetrics().registry),
    ],
)
def test_metrics_have_the_names_that_are_scraped(title: str, registry: Any) -> None:
    """Each metric of a process, under its own heading; and no other."""
    section = (REFERENCE / "metrics.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == exposed(registry)


def test_every_code_of_an_error_is_told() -> None:
    """Those of the configuration and those of authz, each with the status that it has."""
    told = dict(re.findall(r"^\| \d+ \| `(\w+)` \| (.+) \|$", (REFERENCE / "errors.md").read_text(), re.M))

    assert set(told) == errors.codes()
    assert errors.codes() >= {each.value for each in ErrorCode} | {"NOT_FOUND", "PROXY_ERROR", "RATE_LIMITED"}


def test_a_code_that_nothing_is_said_of_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds one is told where to say what it means."""
    monkeypatch.setattr(errors, "MEANINGS", {})

    with pytest.raises(KeyError):
        errors.errors()


def test_a_field_of_the_log_that_nothing_is_said_of_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the access log."""
    monkeypatch.setattr(log, "FIELDS", [*FIELDS, "new"])

    with pytest.raises(KeyError, match="new"):
        log.log()


@pytest.mark.parametrize(
    ("source", "event"),
    [
        ("log.info('a.b', one=1, two=2)", ("`a.b`", "info", "`one`, `two`")),
        ("logger.exception('a.b', exc_info=True)", ("`a.b`", "error", "")),
        ("def f():\n    log.warning('a.b')", ("`a.b`", "warning", "")),
        ("other.info('a.b')", None),
        ("log.info(name)", None),
        ("log.info()", None),
        ("info('a.b')", None),
    ],
)
def test_events_are_found_in_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, event: tuple[str, ...] | None
) -> None:
    """By their name as it is written, with the level and the fields; a calculated name is none."""
    monkeypatch.setattr(log, "ROOT", tmp_path)
    path = tmp_path / "package" / "module.py"
    path.parent.mkdir()
    path.write_text(source)

    assert list(log._events_of(path)) == ([(*event, "package.module")] if event else [])


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"type": "string"}, ["text"]),
        ({"type": "boolean"}, ["boolean"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 86400}, ["number, above 0 to 86,400"]),
        ({"type": "integer", "minimum": 1}, ["whole number, 1 or more"]),
        ({"type": "integer", "minimum": 1, "maximum": 65535}, ["whole number, 1 to 65,535"]),
        ({"type": "string", "maxLength": 1024}, ["text, at most 1,024 characters"]),
        ({"type": "string", "pattern": "^a|b$"}, ["text, `^a\\|b$`"]),
        ({"type": "string", "enum": ["a", "b"]}, ["`a`, `b`"]),
        ({"const": 1}, ["`1`"]),
        ({"$ref": "#/$defs/A"}, ["object"]),
        ({"type": "array", "items": {"$ref": "#/$defs/A"}, "minItems": 1}, ["list of object, not empty"]),
        (
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            ["list of text or whole number"],
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, ["mapping of names to whole number"]),
        ({"type": "object", "additionalProperties": True}, ["object"]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, ["whole number"]),
        ({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": r"\$\{[A-Z]\}"}]}, ["boolean"]),
    ],
    ids=str,
)
def test_types_in_words(definition: dict[str, Any], words: list[str]) -> None:
    """With their bounds; that a reference or null is taken too goes without saying."""
    assert list(_kinds(definition)) == words


def test_every_call_of_the_api_has_its_statuses() -> None:
    """Under the heading of its path and method, each with what it means."""
    page = (REFERENCE / "api.md").read_text()
    nothing: Any = None
    described = create_app(nothing, nothing, nothing, nothing, nothing).openapi()["paths"]

    for path, operations in described.items():
        for method, operation in operations.items():
            section = page.partition(f"## `{method.upper()} {path}`\n")[2].partition("\n## ")[0]
            assert set(re.findall(r"^\| (\d+) \|", section, re.M)) == set(operation["responses"]), path
            named = {each["name"] for each in operation.get("parameters", [])}
            assert set(re.findall(r"^\| `([\w-]+)` \| (?:path|query|header)", section, re.M)) == named, path


def test_each_file_has_one_place() -> None:
    """Every generated file is in the reference or beside what it describes."""
    assert all(name.startswith(("docs/reference/", "deploy/config/")) for name in PAGES)
