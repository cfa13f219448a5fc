"""The supervisor: starts a plan's parts, notices their deaths, starts dead ones again when asked, and stops all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlplane.local.exits import Failure
from controlplane.local.plan import Part, Plan, wrap_of
from controlplane.local.processes import Children, signal_group
from controlplane.local.ready import POLL_SECONDS, NotReady, get, listens, wait_ready
from controlplane.local.runfile import write_run

READY_SECONDS = 30.0
DRAIN_SECONDS = 5.0
TERM_SECONDS = 10.0
LOG_TAIL_LINES = 60

_STOP_ORDER = (("envoy",), ("authz", "ratelimit", "controlplane"), ("redis", "demo"))
"""Who takes requests in goes first, what it needs to finish them last."""


class Supervisor:
    """Owns the children of one gateway. Lives in one event loop, on the main thread."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._say = say
        self._children = Children()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: set[int] = set()
        self._stopping = False
        self._changed = asyncio.Event()

    async def start(self, selection: frozenset[str], wraps: Mapping[str, tuple[str, ...]] | None = None) -> list[str]:
        """Start the selected parts that do not run and wait until they serve. Returns their ids.

        Raises Failure, with the end of the log of the part that is to blame; parts that run are left running.
        """
        parts = [part for part in self.plan.parts if part.matches(selection)]
        if not parts:
            raise Failure(f"this gateway has no {', '.join(sorted(selection))}")
        self.reap()
        dead = [part for part in parts if not self.is_alive(part)]
        await self._launch_all(dead, wraps or {})
        self._write_run()
        try:
            await wait_ready(self.plan, dead, self.is_alive, READY_SECONDS)
        except NotReady as late:
            raise Failure(f"{self._why(late)}\n{tail(late.part.log)}") from late
        return [part.id for part in dead]

    def is_alive(self, part: Part) -> bool:
        process = self._processes.get(part.id)
        return process is not None and process.poll() is None

    def status(self) -> list[dict[str, Any]]:
        """The parts that were started: run.json's entries, with whether each is alive and else how it ended."""
        pids = {identity: process.pid for identity, process in self._processes.items()}
        components: list[dict[str, Any]] = self.plan.run(pids)["components"]
        for component in components:
            status = self._processes[f"{component['name']}-{component['index']}"].poll()
            component |= {"alive": status is None, "exit_status": status}
        return components

    def reap(self) -> None:
        """Take note of children that ended. Called on SIGCHLD."""
        for identity, process in self._processes.items():
            status = process.poll()
            if status is not None and process.pid not in self._ended:
                self._ended.add(process.pid)
                self._children.sweep(process.pid)
                if not self._stopping:
                    self._say(f"{identity} (pid {process.pid}) {describe_end(status)}")
        self._changed.set()

    async def stop(self) -> None:
        """End every part: Envoy after its clients, then the services, then what those use."""
        self._stopping = True
        await self._drain()
        for names in _STOP_ORDER:
            await self._end([part for part in self.plan.parts if part.name in names])
        self._children.close()

    async def _launch_all(self, parts: Sequence[Part], wraps: Mapping[str, tuple[str, ...]]) -> None:
        """Launch side by side, but Envoy only when a control plane can be reached.

        Refused once, Envoy waits up to a second before it tries again; starting it takes a tenth of that.
        """
        for part in parts:
            if part.name != "envoy":
                self._launch(part, wrap_of(wraps, part.id))
        control_planes = [part for part in parts if part.name == "controlplane"]
        deadline = time.monotonic() + READY_SECONDS
        while control_planes and all(map(self.is_alive, control_planes)) and time.monotonic() < deadline:
            if any([await listens(part) for part in control_planes]):
                break
            await asyncio.sleep(POLL_SECONDS)
        for part in parts:
            if part.name == "envoy":
                self._launch(part, wrap_of(wraps, part.id))

    def _launch(self, part: Part, wrap: Sequence[str]) -> None:
        self.plan.directory.state(part.id).mkdir(mode=0o700, parents=True, exist_ok=True)
        wrapped = replace(part, argv=(*wrap, *part.argv)) if wrap else part
        try:
            self._processes[part.id] = self._children.start(wrapped.argv, wrapped.env, part.log)
        except (OSError, subprocess.SubprocessError) as error:
            raise Failure(f"cannot start {part.id}: {error}") from error

    def _write_run(self) -> None:
        write_run(self.plan.directory, self.plan.run({name: p.pid for name, p in self._processes.items()}))

    def _why(self, late: NotReady) -> str:
        process = self._processes[late.part.id]
        status = process.poll()
        if status is None:
            return f"{late} (waited {READY_SECONDS:.0f} s); the end of {late.part.log}:"
        return f"{late.part.id} {describe_end(status)}; the end of {late.part.log}:"

    async def _drain(self) -> None:
        """Have each Envoy tell its clients to leave, and give the requests that run a moment to finish."""
        envoys = [part for part in self.plan.parts if part.name == "envoy" and self.is_alive(part)]
        deadline = time.monotonic() + DRAIN_SECONDS
        for envoy in envoys:
            await get(f"{envoy.admin}/drain_listeners?graceful", method="POST")
        while time.monotonic() < deadline:
            if not any([await _active_requests(envoy) for envoy in envoys]):
                return
            await asyncio.sleep(0.05)

    async def _end(self, parts: Sequence[Part]) -> None:
        alive = [self._processes[part.id] for part in parts if self.is_alive(part)]
        for process in alive:
            signal_group(process.pid, signal.SIGTERM)
            signal_group(process.pid, signal.SIGCONT)  # a stopped process would not see it
        deadline = time.monotonic() + TERM_SECONDS
        while any(process.poll() is None for process in alive):
            if time.monotonic() > deadline:
                for process in alive:
                    signal_group(process.pid, signal.SIGKILL)
                deadline += TERM_SECONDS
            await self._child_or(0.1)
        self.reap()

    async def _child_or(self, seconds: float) -> None:
        """Wait for the next SIGCHLD, or for `seconds`."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return


async def _active_requests(envoy: Part) -> int:
    """Client requests that an Envoy is serving, those of its admin interface left out."""
    answer = await get(f"{envoy.admin}/stats?filter=^http\\..*\\.downstream_rq_active$")
    lines = [line.split(": ") for line in (answer[1] if answer else "").splitlines() if ": " in line]
    return sum(int(value) for name, value in lines if not name.startswith("http.admin."))


def describe_end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
    return f"was killed by {names.get(-status, f'signal {-status}')}"


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (empty)"
