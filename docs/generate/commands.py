"""docs/reference/commands.md: every verb of `mgw` with its options, by asking the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from controlplane.cli.app import VERBS, _application
from controlplane.local import exits
from docs.generate.markdown import page, table

INTRODUCTION = """\
`./mgw` in a checkout, `mgw` where the wheel is installed. What is meant for programs goes to standard output, what is
meant for people to standard error.
"""

STATUSES = (
    (exits.OK, "fine"),
    (exits.FAILED, "rejected, or failed"),
    (exits.USAGE, "the command was not understood"),
    (exits.UNAVAILABLE, "a part is unreachable or missing"),
    (exits.TIMED_OUT, "it took too long"),
)


def commands() -> str:
    """The page."""
    group: Any = typer.main.get_command(_application(list(VERBS)))
    parts = [INTRODUCTION, *_group("mgw", group)]
    statuses = table(("exit status", "meaning"), [(str(number), meaning) for number, meaning in STATUSES])
    return page("Commands", [*parts, "## Exit statuses", statuses])


def _group(name: str, group: Any) -> Iterator[str]:
    for verb, command in group.commands.items():
        whole = f"{name} {verb}"
        if hasattr(command, "commands"):
            yield from _group(whole, command)
            continue
        yield f"## `{whole}`"
        yield str(command.help or "").strip()
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            yield table(("argument", "default", "meaning"), rows)


def _row(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in getattr(parameter, "opts", ())) or f"`{parameter.name}`"
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name).upper()}`"
    default = parameter.default
    shown = "" if default in (None, False, (), "") or callable(default) else f"`{getattr(default, 'value', default)}`"
    return names, "required" if parameter.required else shown, str(getattr(parameter, "help", "") or "")
