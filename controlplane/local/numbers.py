"""Numbers from the environment of `mgw up`."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.local.exits import USAGE, Failure


def whole_number(environment: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """The variable's number; None where it is absent or empty. Raises Failure, by name, for anything else."""
    text = environment.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise Failure(f"{name} is no number from {least} to {most}: {text!r}", USAGE)
    return int(text)
