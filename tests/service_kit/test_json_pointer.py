"""Names of values inside JSON: literal, or RFC 6901 pointers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.json_pointer import ABSENT, find, is_well_formed, steps

RFC_6901: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
"""The document of its section 5."""


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_rfc(pointer: str, value: object) -> None:
    """Section 5, but for the empty pointer: an empty name names nothing."""
    assert is_well_formed(pointer)
    assert find(RFC_6901, steps(pointer)) == value


@pytest.mark.parametrize("name", ["foo.0", "a/b", "foo/0", "~1", "https://example.com/tier", "a.b.c", "#/foo"])
def test_every_other_name_is_literal(name: str) -> None:
    """Dots, slashes inside and URLs are a member's name as they stand."""
    assert find({name: 1, "foo": [2]}, steps(name)) == 1


@pytest.mark.parametrize(
    "pointer",
    [
        "/foo/2",
        "/foo/-",
        "/foo/00",
        "/foo/01",
        "/foo/+1",
        "/foo/-1",
        "/foo/ 1",
        "/foo/١",
        "/foo/0/x",
        "/a",
        "/ /0",
        "//",
    ],
)
def test_what_is_not_there_is_absent(pointer: str) -> None:
    """Beside the list, a spelling that is no index, or a way through what has no members."""
    assert find(RFC_6901, steps(pointer)) is ABSENT


def test_null_is_there() -> None:
    """A member that is null is no absent one."""
    assert find({"a": {"b": None}}, steps("/a/b")) is None


def test_a_number_can_be_a_members_name() -> None:
    """An index is one in lists alone."""
    assert find({"a": {"0": "member"}}, steps("/a/0")) == "member"


def test_escapes_are_read_once() -> None:
    """`~01` is `~1` and not `/` (section 4)."""
    assert steps("/~01/~10") == ("~1", "/0")


@pytest.mark.parametrize("pointer", ["/~", "/a~", "/a~2", "/~a/b", "/a/~~"])
def test_escapes_that_mean_nothing(pointer: str) -> None:
    """`~` stands for something only as `~0` and `~1` (section 3)."""
    assert not is_well_formed(pointer)


TEXTS = st.text(max_size=5)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_every_member_has_a_pointer(way: list[str]) -> None:
    """Whatever its name holds."""
    value: Any = "found"
    for name in reversed(way):
        value = {name: value}
    pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in way)

    assert is_well_formed(pointer)
    assert find(value, steps(pointer)) == "found"
