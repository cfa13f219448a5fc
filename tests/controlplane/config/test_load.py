"""From text to a configuration: what comes out, and which problems are told together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.config import document, load
from controlplane.errors import ConfigRejected
from tests.support.configs import default_text, values

TEXT = json.dumps(values())


def found(text: str, internal: tuple[str, ...] = (), **environment: str) -> list[tuple[str, str, int, int]]:
    with pytest.raises(ConfigRejected) as caught:
        load.load(text, environment, internal)
    return [(problem.path, problem.message, problem.line, problem.column) for problem in caught.value.problems]


def written(**changes: Any) -> str:
    return json.dumps(values(**changes))


def test_the_document_stays_as_written_and_the_configuration_is_resolved() -> None:
    """References are replaced in the configuration alone: the document is for people, and goes back to them."""
    text = default_text()

    read, config = load.load(text, {"API_GATEWAY_PORT": "9000", "JWT_SECRET": "hush"})

    assert (read.text, read.data) == (text, document.read(text).data)
    assert read.data["listener"]["port"] == "${API_GATEWAY_PORT:-8080}"
    assert config.listener.port == 9000
    assert config.auth.providers[0].secret == "${JWT_SECRET}"


def test_a_text_that_cannot_be_read_is_told_alone() -> None:
    """Nobody can say what is missing from values that are not there."""
    assert found("version: 2\nversion: 1\nlistener: ${NO_PORT}\n") == [("version", "the key stands here twice", 2, 1)]


def test_missing_references_are_told_alone() -> None:
    """A value that is not known yet is not called unfit."""
    text = "listener: {port: '${NO_PORT}'}\nversion: '${NO_VERSION}'\nservises: []\n"

    assert [(path, line) for path, _, line, _ in found(text)] == [("listener.port", 1), ("version", 2)]


def test_fields_and_rules_are_told_together_in_the_order_of_the_text() -> None:
    """By line and then by column, whoever found it."""
    text = """\
routes:
  - {name: lost, service: nowhere, match: {path: x, methods: [GET]}}
  - {name: lost, service: nowhere, match: {path: /x, methods: [GET]}, typo: 1}
version: 1
limits: {tiers: {free: {rps: 0, rpm: 1, burst: 1}}}
auth: {providers: [{name: p, algorithms: [HS256], secret: "${S}"}]}
services: [{name: demo, endpoints: [{url: "http://10.0.0.1:8081"}]}]
"""

    assert [(path, line, column) for path, _, line, column in found(text)] == [
        ("routes.0.service", 2, 18),
        ("routes.0.match.path", 2, 44),
        ("routes.1.name", 3, 6),
        ("routes.1.service", 3, 18),
        ("routes.1.typo", 3, 71),
        ("limits.tiers", 5, 10),
        ("limits.tiers.free.rps", 5, 25),
    ]


def test_what_is_missing_has_the_place_of_what_lacks_it() -> None:
    """There is no text of its own to point at."""
    text = TEXT.replace('"name": "demo", ', "")

    (problem,) = [each for each in found(text) if each[0] == "services.0.name"]

    assert problem == ("services.0.name", "is required", 1, text.index('{"endpoints"') + 1)


def test_an_inside_address_is_found_beside_what_does_not_fit() -> None:
    """The gateway's own addresses are looked for in whatever could be read."""
    text = written(listener={"port": 0})

    assert [path for path, *_ in found(text, ("10.0.0.1:8081",))] == ["services.0.endpoints.0.url", "listener.port"]
    assert [path for path, *_ in found(text, ("10.0.0.1:8082",))] == ["listener.port"]


@pytest.mark.parametrize(
    ("url", "environment"), [("${URL}", {"URL": "http://10.0.0.7:6379"}), ("${URL:-http://10.0.0.7:6379}", {})]
)
def test_an_inside_address_does_not_hide_in_a_reference(url: str, environment: dict[str, str]) -> None:
    """What counts is the value that nodes would be told."""
    text = written(services=[{"name": "demo", "endpoints": [{"url": url}]}])

    assert [path for path, *_ in found(text, ("10.0.0.7:6379",), **environment)] == ["services.0.endpoints.0.url"]


def test_the_rejection_reads_as_one_line() -> None:
    """Its text has every path and message, for a log."""
    with pytest.raises(ConfigRejected) as caught:
        load.load(written(version=2, servises=[]), {})

    assert str(caught.value) == "version: Input should be 1; servises: no such key"
