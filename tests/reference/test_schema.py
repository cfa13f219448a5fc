"""The JSON Schema: it takes what the loader takes, and rejects what a field of the model does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from controlplane.config import document
from controlplane.config.model import GatewayConfig
from controlplane.reference.schema import schema, text
from service_kit.bounded_yaml import Path
from tests.support.configs import ENVIRONMENT, rich_text, values

VALIDATOR = Draft202012Validator(schema())
RICH = document.resolve(document.read(rich_text()), ENVIRONMENT)


def takes(given: Any) -> bool:
    return bool(VALIDATOR.is_valid(given))


def errors(given: Any) -> set[str]:
    """The kinds of what the model has against the values, whatever the rules say of them."""
    try:
        GatewayConfig.model_validate(given)
    except ValidationError as error:
        return {each["type"] for each in error.errors()}
    return set()


CHECKED_BY_CODE = {"value_error"}
"""Of an address, a path, or several keys together: a schema cannot say it."""


def check(given: Any, path: Path) -> None:
    """What the model takes the schema takes; what a field's type rejects it rejects too."""
    found = errors(given)
    if not found:
        assert takes(given), path
    elif found - CHECKED_BY_CODE:
        assert not takes(given), path


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything in a document, with its place."""
    yield path, value
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(child, (*path, key))


def without(path: Path) -> Any:
    given: Any = copy.deepcopy(RICH)
    holder = given
    for part in path[:-1]:
        holder = holder[part]
    del holder[path[-1]]
    return given


def replaced(path: Path, value: Any) -> Any:
    given: Any = [copy.deepcopy(RICH)]
    holder = given
    for part in (0, *path)[:-1]:
        holder = holder[part]
    holder[(0, *path)[-1]] = value
    return given[0]


SECTIONS = sorted(RICH)


def of(section: str) -> list[tuple[Path, Any]]:
    return [(path, value) for path, value in places(RICH) if path and path[0] == section]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_key_that_nobody_knows_is_rejected_wherever_it_stands(section: str) -> None:
    """In each object; but for those whose keys are names, or a key set's own."""
    for path, value in of(section):
        if isinstance(value, dict):
            check(replaced(path, value | {"no-such-key": 1}), path)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_key_that_is_required_is_missed(section: str) -> None:
    """And one that is not, is not."""
    for path, _ in of(section):
        if isinstance(path[-1], str):
            check(without(path), path)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("junk", [{"no": "such"}, [["no"]], None, -1, ""], ids=str)
def test_a_value_of_another_kind_is_rejected(section: str, junk: Any) -> None:
    """A mapping or a list where a number or a text has to be, and the other way round; nothing, and too little."""
    for path, _ in of(section):
        check(replaced(path, junk), path)


def test_these_documents_are_rejected_at_all() -> None:
    """The tests above see both."""
    assert errors(RICH) == set()
    assert errors(without(("services",))) == {"missing"}
    assert errors(replaced(("log", "requests"), "none")) == {"literal_error"}
    assert errors(replaced(("routes", 0, "match", "path"), "x")) == CHECKED_BY_CODE


@pytest.mark.parametrize(
    ("path", "value", "good"),
    [
        (("listener", "port"), "${PORT}", True),
        (("listener", "port"), "${PORT:-8080}", True),
        (("listener", "port"), "8080x", False),
        (("listener", "port"), "$PORT", False),
        (("listener", "port"), 0, False),
        (("listener", "host"), "${HOST:-::}", True),
        (("security_headers", "enabled"), "${ON}", True),
        (("security_headers", "frame_options"), "${OPTIONS}", True),
        (("security_headers", "frame_options"), "ALLOW", False),
        (("services", 0, "name"), "${NAME}", True),
        (("services", 0, "name"), "Name", False),
        (("services", 0, "endpoints", 0, "url"), "http://${HOST}:80", True),
        (("services", 0, "timeout_seconds"), 2.5, True),
        (("services", 0, "timeout_seconds"), "${SECONDS}", True),
        (("cors", "allow_origins"), "${ALLOWED_ORIGINS:-}", True),
        (("cors", "allow_origins"), "https://a, https://b", True),
        (("cors", "allow_methods"), "GET, POST", False),
        (("routes", 0, "match", "methods", 0), "TRACE", False),
    ],
)
def test_references_stand_for_values(path: Path, value: Any, good: bool) -> None:
    """`${NAME}` is taken wherever the loader resolves it, and a text with commas where it splits one."""
    assert takes(replaced(path, value)) is good


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(child)


def test_every_object_and_key_says_what_it_is() -> None:
    """An editor shows it where somebody writes."""
    found = schema()

    for name, definition in (("", found), *found["$defs"].items()):
        assert definition["description"], name
        for key, value in definition["properties"].items():
            assert value["description"], f"{name}.{key}"


def test_nothing_is_named_twice() -> None:
    """Titles that only repeat a key are left out, references lead somewhere, and no definition is left over."""
    found = schema()

    titles = [each["title"] for each in objects(found) if isinstance(each.get("title"), str)]
    named = {each["$ref"].rpartition("/")[2] for each in objects(found) if isinstance(each.get("$ref"), str)}
    assert titles == ["Media Gateway configuration"]
    assert named == set(found["$defs"])
    assert list(found["$defs"]) == sorted(found["$defs"])


def test_defaults_are_those_of_the_model() -> None:
    """Beside the value and the reference, where an editor looks for it."""
    port = schema()["$defs"]["Listener"]["properties"]["port"]

    assert port["default"] == GatewayConfig.model_validate(values()).listener.port
    assert len(port["anyOf"]) == 2


def test_the_file_is_the_schema() -> None:
    """Text that people can read, with a line at its end."""
    assert json.loads(text()) == schema()
    assert text().endswith("}\n")
    assert "\\u" not in text().replace("\\\\u", "")
