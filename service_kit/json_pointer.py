"""Finds a value inside JSON by a name: a member's, or an RFC 6901 pointer where the name begins with `/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

ABSENT = object()
"""What `find` returns where there is nothing: `None` is a value of JSON."""

_POINTER = re.compile(r"(/([^/~]|~[01])*)+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def is_pointer(name: str) -> bool:
    """Whether the name says a place and not a member's name. `is_well_formed` says whether it can be read."""
    return name.startswith("/")


def is_well_formed(pointer: str) -> bool:
    """Whether every `~` in it is `~0` (which stands for `~`) or `~1` (for `/`)."""
    return _POINTER.fullmatch(pointer) is not None


@lru_cache(maxsize=4096)
def steps(name: str) -> tuple[str, ...]:
    """The way to the value, from the outside in. Any other name than a pointer is one step, whatever it holds."""
    if not is_pointer(name):
        return (name,)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in name.split("/")[1:])


def find(value: Any, way: Sequence[str]) -> Any:
    """The value at the end of the way; ABSENT where there is none. A step into a list is an index (RFC 6901 §4)."""
    for step in way:
        value = _member(value, step)
    return value


def _member(value: Any, step: str) -> Any:
    if type(value) is dict:
        return value.get(step, ABSENT)
    if type(value) is list and _INDEX.fullmatch(step) and int(step) < len(value):
        return value[int(step)]
    return ABSENT
