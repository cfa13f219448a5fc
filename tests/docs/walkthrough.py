"""A page as a walk through a shell: its commands in order, and what each of them writes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tests.docs.markdown import ROOT, Block, blocks

SECONDS = 90
_END = "-- end of step {number}: {status} --"


@dataclass(frozen=True)
class Step:
    """Commands, and the output that the page shows below them; None where it shows none."""

    commands: Block
    shown: str | None


def steps(page: str) -> list[Step]:
    """Each `bash` block with the `text` block that follows it, if that is the next one."""
    found = [block for block in blocks(page) if block.language in ("bash", "text")]
    return [
        Step(block, after.text if after and after.language == "text" else None)
        for block, after in zip_longest(found, found[1:])
        if block.language == "bash"
    ]


def run(scripts: list[str], folder: Path) -> list[str]:
    """Run scripts one after the other in one shell, and return what each wrote; fewer where one did not end well."""
    marked = [
        f"{text}\nprintf '\\n{_END.format(number=number, status='%s')}\\n' $?" for number, text in enumerate(scripts)
    ]
    written = folder.with_name(f"{folder.name}.out")
    ours = ("MGW_", "JWT_SECRET", "REDIS_URL", "API_GATEWAY_", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment["PATH"] = f"{ROOT}:{environment['PATH']}"
    with written.open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(marked)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):  # what it wrote so far says where it hangs
                shell.wait(SECONDS)
        finally:
            end(shell, folder, environment)
    return re.split(r"\n-- end of step \d+: 0 --\n", written.read_text())[:-1]


def end(shell: subprocess.Popen[bytes], folder: Path, environment: dict[str, str]) -> None:
    """Stop the gateway and every server that the tour has left running."""
    subprocess.run(["mgw", "down"], cwd=folder, env=environment, capture_output=True, check=False)
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it left nothing
    shell.wait()


def first_missing(shown: str, output: str) -> str | None:
    """The first line of what is shown that the output lacks, where `…` stands for anything; None if all are there."""
    rest = output
    for line in filter(lambda line: line.strip("… "), shown.splitlines()):
        found = re.search(".*".join(re.escape(part) for part in line.split("…")), rest)
        if found is None:
            return line
        rest = rest[found.end() :]
    return None
