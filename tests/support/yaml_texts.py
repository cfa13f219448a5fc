"""YAML that is short to write and long to follow."""

from __future__ import annotations

ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)
)
"""A hundred million values."""


def alias_chain(length: int) -> str:
    """A list whose last item is `length` levels deep, though no line is."""
    return "- &a1 []\n" + "".join(f"- &a{n} [*a{n - 1}]\n" for n in range(2, length + 1))
