"""Reading a document: values and their places, and text that is refused before anyone looks at what it means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.config import document
from controlplane.errors import ConfigRejected, Problem
from service_kit.bounded_yaml import Path
from tests.support.yaml_texts import ALIAS_BOMB, alias_chain

TEXT = """\
# a comment
services:
  - name: library
    endpoints: [{url: "http://a"}, {url: "http://b"}]
routes: {}
"""


def refused(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigRejected) as caught:
        document.read(text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        ((), (2, 1)),
        (("services",), (2, 1)),
        (("services", 0), (3, 5)),
        (("services", 0, "name"), (3, 5)),
        (("services", 0, "endpoints", 1), (4, 36)),
        (("services", 0, "endpoints", 1, "url"), (4, 37)),
        (("services", 0, "endpoints", 1, "url", "deeper"), (4, 37)),
        (("services", 0, "missing"), (3, 5)),
        (("routes", 7, "name"), (5, 1)),
        (("nowhere",), (2, 1)),
    ],
)
def test_every_value_has_a_place(path: Path, mark: document.Mark) -> None:
    """A value is found at its key's line and column; what is not there, at the nearest thing around it."""
    assert document.read(TEXT).mark(path) == mark


def test_a_problem_reads_as_editors_understand() -> None:
    """A problem names file, line, column, dotted path and message; without a place, what it has."""
    found = document.read(TEXT).problem(("services", 0, "name"), "is taken")

    assert found.at("gateway.yaml") == "gateway.yaml:3:5: services.0.name: is taken"
    assert Problem("", "Envoy rejects it").at("gateway.yaml") == "gateway.yaml: Envoy rejects it"


def test_json_and_yaml_read_alike() -> None:
    """The same document in YAML and in JSON has the same values."""
    values = document.read(TEXT).data

    assert document.read(json.dumps(values, indent="\t")).data == values
    assert document.read(json.dumps(values)).data == values


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x7f")))
@example("\U0001f600")
@example("\\ud83d\\ude00 \\\U0001f600\\")
@example('"\U00010000\U0010ffff')
def test_json_is_read_as_others_write_it(text: str) -> None:
    """With every character escaped that is not ASCII, in pairs where it takes two."""
    written = json.dumps({"a": text})

    read = document.read(written)

    assert read.data == {"a": text}
    assert read.text == written


@pytest.mark.parametrize(
    "text", ['{"a": "\\ud83d"}', '{"a": "\\ude00\\ud83d"}', '{"a": "\\ud83d\\u0041"}', 'a: "\\ud83d"']
)
def test_half_a_character_is_none(text: str) -> None:
    """It could be written nowhere."""
    assert "invalid Unicode character" in refused(text)[0].message


def test_what_only_looks_like_an_escape_stays() -> None:
    """In plain YAML a backslash is a backslash."""
    assert document.read("a: \\ud83d\\ude00\n").data == {"a": "\\ud83d\\ude00"}


def test_an_alias_stands_for_its_anchor() -> None:
    """What an alias refers to is there once more, with a place of its own kind."""
    read = document.read("a: &x {b: 1}\nc: *x\n")

    assert read.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert read.mark(("c",)) == (2, 1)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("on: 2026-01-01", {"on": "2026-01-01"}),
        ("at: 2026-01-01T00:00:00Z", {"at": "2026-01-01T00:00:00Z"}),
        ("1.5: x", {"1.5": "x"}),
        ("a: ~", {"a": None}),
        ("a: yes", {"a": True}),
        ("a: 0x10", {"a": 16}),
        ("a: <<", {"a": "<<"}),
        ("a: =", {"a": "="}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_values_are_what_json_has(text: str, values: Any) -> None:
    """A document holds text, numbers, booleans and null; a date is text as it was written."""
    assert document.read(text).data == values


@pytest.mark.parametrize(
    ("text", "path", "message", "line", "column"),
    [
        ("", "", "is empty", 1, 1),
        ("# nothing but this\n", "", "is empty", 1, 1),
        ("a: 1\nb: [2\n", "", "did not find expected ',' or ']'", 3, 1),
        ("a: 1\na: 2\n", "a", "stands here twice", 2, 1),
        ('{"a": {"b": 1, "b": 2}}', "a.b", "stands here twice", 1, 16),
        ("a: 1\n--- \nb: 2\n", "", "another document", 2, 1),
        ("? [a]\n: 1\n", "", "a key must be text", 1, 3),
        ("a: &x\n  b: *x\n", "a.b", "an alias that contains itself", 1, 4),
        ("a: *x\n", "", "undefined alias", 1, 4),
        (alias_chain(2000), "", "nested deeper than 32 levels", 0, 0),
        (ALIAS_BOMB, "a", "more than 500000 values", 0, 0),
        ("[" * 33 + "]" * 33, "", "nested deeper than 32 levels", 1, 33),
        ("[" * 100_000, "", "nested deeper than 32 levels", 1, 33),
        ("x: \ud800", "", "not a YAML document", 1, 1),
        ("x: \0", "", "not a YAML document", 1, 1),
        ("a: .nan", "a", "not a finite number", 1, 4),
        ("a: -.inf", "a", "not a finite number", 1, 4),
        ("a: " + "9" * 5000, "a", "at most 64 characters", 1, 4),
        ("a: 1" + ":59" * 100_000, "a", "at most 64 characters", 1, 4),
        ("a: !!bool maybe", "a", "not a value of this type", 1, 4),
        ("a: !!int ''", "a", "not a value of this type", 1, 4),
        ("a: !!float ''", "a", "not a value of this type", 1, 4),
        ("a: !!binary eA==", "a", "neither text, number, boolean nor null", 1, 4),
        ("a: !!python/name:os.system x", "a", "neither text, number, boolean nor null", 1, 4),
        ("a: !mine x", "a", "neither text, number, boolean nor null", 1, 4),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bad_text_is_refused(text: str, path: str, message: str, line: int, column: int) -> None:
    """Text that is no document, or a dangerous one, is a problem with its place."""
    (problem, *others) = refused(text)

    assert others == []
    assert problem.path.startswith(path)
    assert message in problem.message
    assert line == 0 or (problem.line, problem.column) == (line, column)


def test_every_bad_value_is_named() -> None:
    """Duplicate keys and unreadable values are reported together."""
    problems = refused("a: 1\na: 2\nb: .inf\nc: {d: 1, d: 2}\n")

    assert [(problem.path, problem.line) for problem in problems] == [("a", 2), ("b", 3), ("c.d", 4)]


def test_a_document_over_8_mib_is_refused() -> None:
    """The size is counted in bytes of UTF-8."""
    assert "larger than" in refused("ä" * (document.MAX_BYTES // 2 + 1))[0].message


def resolved(text: str, **environment: str) -> Any:
    return document.resolve(document.read(text), environment)


@pytest.mark.parametrize(
    ("text", "environment", "value"),
    [
        ("${URL}", {"URL": "http://a"}, "http://a"),
        ("${URL:-http://b}", {}, "http://b"),
        ("${URL:-http://b}", {"URL": ""}, "http://b"),
        ("${URL:-http://b}", {"URL": "http://a"}, "http://a"),
        ("${URL:-}", {}, ""),
        ("http://${HOST}:${PORT:-80}/", {"HOST": "h"}, "http://h:80/"),
        ("${URL}", {"URL": "${OTHER}"}, "${OTHER}"),
        ("$URL and ${not-a-name} and $${", {"URL": "x"}, "$URL and ${not-a-name} and $${"),
    ],
)
def test_references_take_their_value_from_the_environment(text: str, environment: dict[str, str], value: str) -> None:
    """`${NAME}` is the variable's value and `${NAME:-default}` the default where there is none; values are final."""
    assert resolved(f"a: [{json.dumps(text)}]", **environment) == {"a": [value]}


def test_missing_references_are_all_named_with_their_places() -> None:
    """A variable without value and default is a problem at each reference."""
    with pytest.raises(ConfigRejected) as caught:
        resolved('a: ["${ONE}"]\nb:\n  c: "${TWO}${THREE}"\n', TWO="")

    assert [
        (problem.path, problem.line, problem.message.split()[4].rstrip(",")) for problem in caught.value.problems
    ] == [
        ("a.0", 1, "ONE"),
        ("b.c", 3, "TWO"),
        ("b.c", 3, "THREE"),
    ]


def test_secrets_stay_references() -> None:
    """A value under the key `secret` is not looked up, wherever it stands and whether or not it is set."""
    text = 'providers: [{secret: "${JWT_SECRET}"}, {secrets: [{secret: "${OTHER}"}]}]'

    assert resolved(text, JWT_SECRET="hush") == document.read(text).data


@pytest.mark.parametrize("name", ["MGW_API_TOKEN", "MGW_ENVOY_BIN", "JWT_SECRET", "REDIS_PASSWORD", "GITHUB_TOKEN"])
@pytest.mark.parametrize("form", ["${%s}", "${%s:-x}", "http://a/${%s}"])
def test_private_variables_cannot_be_read(name: str, form: str) -> None:
    """A document that may only be tried must not show what is in the environment: no answer holds such a value."""
    with pytest.raises(ConfigRejected) as caught:
        resolved(f"a: {json.dumps(form % name)}", **{name: "hush"})

    assert "is private" in str(caught.value)
    assert "hush" not in str(caught.value)


@given(st.text())
@example("!!timestamp x")
@example("!!set {a, b}")
@example("<<: {a: 1}")
@example("%TAG ! tag:x,2000:\n--- !a b")
@example("&a [&a x, *a]")
@example("? &a a\n: *a")
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever the text, it is read or refused, and what was read is JSON."""
    try:
        read = document.read(text)
        values = document.resolve(read, {})
    except ConfigRejected as refusal:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in refusal.problems)
    else:
        json.dumps([read.data, values], allow_nan=False)


TOKENS = [
    "a",
    ":",
    " ",
    "\n",
    "-",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&x",
    "*x",
    "!!int",
    "!!bool",
    "!!float",
    "!!null",
    "1",
    "?",
]
TOKENS += [
    "'",
    '"',
    "|",
    ">",
    "#",
    "%",
    "${A}",
    "  ",
    "\t",
    "---",
    "...",
    "<<",
    ".inf",
    "2026-01-01",
    "1:30",
    "\\ud800",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=25))
def test_no_yaml_raises_anything_else(tokens: list[str]) -> None:
    """The same for text that is nearly YAML."""
    try:
        read = document.read("".join(tokens))
    except ConfigRejected:
        return
    json.dumps(read.data, allow_nan=False)
