"""A plan whose parts are stand-ins (see stand_in.py)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from controlplane.local.plan import Part, Plan
from controlplane.local.runfile import RunDirectory
from tests.support.configs import ROOT
from tests.support.ports import free_port


def a_part(directory: RunDirectory, notes: Path, name: str, index: int = 0, *wrap: str) -> Part:
    """A stand-in for NAME-INDEX, which notes what is asked of it in the folder `notes`."""
    address = f"127.0.0.1:{free_port()}"
    identity = f"{name}-{index}"
    stand_in = (sys.executable, "-m", "tests.support.stand_in", identity, address, str(notes))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return Part(
        name, index, (*wrap, *stand_in), environment, address, directory.log(identity), admin=f"http://{address}"
    )


def a_plan(directory: RunDirectory, *parts: Part) -> Plan:
    """A gateway of these parts."""
    return Plan(directory, "http://gateway", "http://api", "token", "none", parts, log_bytes=1 << 20)
