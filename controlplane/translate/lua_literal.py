"""Values as Lua source."""

from __future__ import annotations


def quoted(text: str) -> str:
    """A Lua string of these bytes, whatever they are."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode()) + '"'
