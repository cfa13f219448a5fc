"""The options of `mgw up` that have a little language of their own."""

from __future__ import annotations

import pytest

from controlplane.local.exits import USAGE, Failure
from controlplane.local.options import parse_only, parse_wraps


def test_wraps_are_split_like_a_shell_does() -> None:
    """Quotes hold words together; an equals sign in the command belongs to it."""
    assert parse_wraps(["ratelimit=faketime -f '+60 s'", "authz-1=env A=b"]) == {
        "ratelimit": ("faketime", "-f", "+60 s"),
        "authz-1": ("env", "A=b"),
    }


def test_only_takes_kinds_and_parts() -> None:
    """Commas and repeated options both make a list."""
    assert parse_only(["redis, authz-1", "envoy"]) == {"redis", "authz-1", "envoy"}


@pytest.mark.parametrize("text", ["nobody", "redis-x", "Redis", "redis-"])
def test_unknown_parts_are_usage_errors(text: str) -> None:
    """A part that cannot exist is refused before anything starts."""
    for parse in (lambda: parse_only([text]), lambda: parse_wraps([f"{text}=nice"])):
        with pytest.raises(Failure) as failure:
            parse()
        assert failure.value.status == USAGE


def test_a_wrap_without_a_command_is_a_usage_error() -> None:
    """`--wrap redis` names no command."""
    with pytest.raises(Failure):
        parse_wraps(["redis"])
