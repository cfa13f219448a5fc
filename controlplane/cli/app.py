"""The verbs of `mgw`, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from controlplane import __version__
from controlplane.local.exits import FAILED, OK, USAGE, Failure

VERBS = {
    "up": "controlplane.cli.up",
    "down": "controlplane.cli.down",
    "status": "controlplane.cli.status",
    "token": "controlplane.cli.token",
    "breakers": "controlplane.cli.breakers",
    "validate": "controlplane.cli.validate",
    "render": "controlplane.cli.render",
    "schema": "controlplane.cli.schema",
    "test": "controlplane.cli.test",
    "dev": "controlplane.cli.dev",
}
"""Each verb's module. It has a function `command`, or an `app` of several; `CONTEXT` may hold settings of its context.

To add a verb, write its module and a line here. A module is imported only when its verb is run, or for `--help`.
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Only the verb that is meant: the others' imports would cost more than most verbs do.
    names = words[:1] if words[:1] and words[0] in VERBS else list(VERBS)
    try:
        status = typer.main.get_command(_application(names))(args=words, prog_name="mgw", standalone_mode=False)
    except Failure as failure:
        return _fail(str(failure), failure.status)
    except typer.Abort:
        return _fail("stopped", 130)
    except typer.TyperException as error:
        return _fail(_message(error), USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return FAILED
    return status if isinstance(status, int) else OK


def _application(names: Sequence[str]) -> typer.Typer:
    application = typer.Typer(add_completion=False, no_args_is_help=False)
    application.callback(invoke_without_command=True)(_mgw)
    for name in names:
        module = import_module(VERBS[name])
        if hasattr(module, "app"):
            application.add_typer(module.app, name=name)
        else:
            application.command(name, context_settings=getattr(module, "CONTEXT", None))(module.command)
    return application


def _mgw(context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Run and operate Media Gateway: Envoy carries the traffic, Python decides."""
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


def _message(error: typer.TyperException) -> str:
    describe = getattr(error, "format_message", None)
    return str(describe()) if describe else str(error)


def _fail(message: str, status: int) -> int:
    print(f"mgw: {message}", file=sys.stderr)  # noqa: T201 (this is where the command talks)
    return status
