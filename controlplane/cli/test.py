"""`mgw test`: run the tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import typer

from controlplane.local.exits import UNAVAILABLE, Failure
from controlplane.local.resources import checkout

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

WORKERS = 2


def command(context: typer.Context) -> None:
    """Run pytest on the tests, with all arguments passed on (`mgw test -k token -x`)."""
    root = checkout()
    if find_spec("pytest") is None:
        raise Failure("the test tools are not installed: ./mgw test installs them", UNAVAILABLE)
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *workers(context.args), *context.args])


def workers(arguments: Sequence[str]) -> list[str]:
    """Two workers, unless the user chose, or wants to look into a test while it runs."""
    chosen = ("-n", "--numprocesses", "--pdb", "--trace", "no:xdist", "-pno:xdist", "--dist")
    return [] if any(word.startswith(chosen) for word in arguments) else ["-n", str(WORKERS), "--dist", "loadfile"]
