"""The ten-minute tour is true: its commands are run in order, in an empty folder, and say what the page shows."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, ROOT, Block, blocks

GUIDE = DOCS / "guide.md"
PORTS = ("8080", "9101", "9102")
"""What the page says; here each is replaced by a free one."""

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
    following = [*found[1:], None]
    return [
        Step(block, after.text if after and after.language == "text" else None)
        for block, after in zip(found, following, strict=True)
        if block.language == "bash"
    ]


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_the_tour_works_as_written(tmp_path: Path) -> None:
    """A reader who pastes every command sees what the page shows."""
    page = GUIDE.read_text()
    for written, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        page = re.sub(rf"\b{written}\b", free, page)
    tour = steps(page)

    outputs = run([step.commands.text for step in tour], tmp_path)

    assert len(outputs) == len(tour), f"the tour stopped in the block at line {tour[len(outputs)].commands.line}"
    for step, output in zip(tour, outputs, strict=True):
        missing = first_missing(step.shown or "", output)
        assert missing is None, f"line {step.commands.line} of the page: {missing!r} is not in what follows\n{output}"


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
            shell.wait(SECONDS)
        except subprocess.TimeoutExpired:
            pass  # what it wrote so far says where it hangs
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


@pytest.mark.parametrize(
    ("shown", "output", "missing"),
    [
        ("a\nb\n", "x\na\nb\n", None),
        ("b\na\n", "a\nb\n", "a"),
        ("200 … 429\n", "200 200 429 429\n", None),
        ("200 … 429\n", "200 200\n429\n", "200 … 429"),
        ("a\n…\nb\n", "a\n1\n2\nb\n", None),
    ],
)
def test_what_is_shown_is_found_in_order(shown: str, output: str, missing: str | None) -> None:
    """Each line is looked for after the one before it; `…` stands for anything within a line."""
    assert first_missing(shown, output) == missing


def test_every_step_of_the_tour_is_found() -> None:
    """A page of which no command is read would pass: this one has more than ten."""
    assert len(steps(GUIDE.read_text())) > 10
