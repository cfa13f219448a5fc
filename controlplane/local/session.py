"""One life of a supervisor, from its start to its stop: in the foreground, or as a daemon that reports to who asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.local import control, kept_environment
from controlplane.local.exits import FAILED, OK, Failure
from controlplane.local.follow import follow
from controlplane.local.options import parse_only, parse_wraps
from controlplane.local.plan import Plan
from controlplane.local.rotation import keep_bounded
from controlplane.local.runfile import Lock
from controlplane.local.supervisor import Supervisor

Report = Callable[[Failure | None], None]


def run_foreground(plan: Plan, selection: frozenset[str], lock: Lock, on_ready: Callable[[], None]) -> int:
    """Run until a signal or `mgw down`. The parts' logs go to standard error."""

    def report(failure: Failure | None) -> None:
        if failure is None:
            on_ready()
        else:
            say(str(failure))

    lock.sign()
    return asyncio.run(_live(plan, selection, report, follow_logs=True))


def run_detached(plan: Plan, selection: frozenset[str], lock: Lock) -> None:
    """Leave a daemon behind and return once it is ready. Raises Failure with why it is not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        status = FAILED
        try:
            status = _daemon(plan, selection, lock, writing)
        finally:
            os._exit(status)
    os.close(writing)
    lock.release()  # our copy: the daemon has its own
    try:
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if not line:
        raise Failure(f"the supervisor ended; see {plan.directory.log('supervisor')}")
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        os.waitpid(pid, 0)
        raise Failure(reply["error"], reply["status"])


def _daemon(plan: Plan, selection: frozenset[str], lock: Lock, pipe: int) -> int:
    os.setsid()
    lock.sign()
    _redirect(os.devnull, os.O_RDONLY, 0)
    for descriptor in (1, 2):
        _redirect(str(plan.directory.log("supervisor")), os.O_WRONLY | os.O_CREAT | os.O_APPEND, descriptor)

    def report(failure: Failure | None) -> None:
        reply = {"error": str(failure), "status": failure.status} if failure else {}
        os.write(pipe, json.dumps(reply).encode() + b"\n")
        os.close(pipe)

    return asyncio.run(_live(plan, selection, report, follow_logs=False))


def _redirect(path: str, flags: int, descriptor: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)


async def _live(plan: Plan, selection: frozenset[str], report: Report, *, follow_logs: bool) -> int:
    supervisor = Supervisor(plan, say)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end.set)
    loop.add_signal_handler(signal.SIGCHLD, supervisor.reap)
    logs = [plan.directory.log("supervisor"), *(part.log for part in plan.parts)]
    bounding = loop.create_task(keep_bounded(logs, plan.log_bytes))
    following = loop.create_task(follow({part.id: part.log for part in plan.parts})) if follow_logs else None
    server = await control.serve(plan.directory, _handler(supervisor, end))
    try:
        status = await _start_and_wait(supervisor, selection, report, end)
    finally:
        await supervisor.stop()
        bounding.cancel()
        if following:
            following.cancel()
        plan.directory.run_json.unlink(missing_ok=True)
        plan.directory.control.unlink(missing_ok=True)
        server.close()
    return status


async def _start_and_wait(supervisor: Supervisor, selection: frozenset[str], report: Report, end: asyncio.Event) -> int:
    starting = asyncio.ensure_future(supervisor.start(selection))
    ending = asyncio.ensure_future(end.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        report(Failure("stopped before it was ready"))
        return OK
    try:
        starting.result()
    except Failure as failure:
        report(failure)
        return FAILED
    report(None)
    await ending
    say("stopping")
    return OK


def _handler(supervisor: Supervisor, end: asyncio.Event) -> control.Handler:
    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        match request.get("verb"):
            case "status":
                return {"components": supervisor.status()}
            case "start":
                wraps = parse_wraps(request.get("wrap", []))
                started = await supervisor.start(parse_only(request["only"]), wraps)
                return {"started": started, "kept": _kept(supervisor.plan, request.get("environment", {}))}
            case "stop":
                end.set()
                return {}
        raise Failure(f"no such request: {request}")

    return handle


def _kept(plan: Plan, here: Mapping[str, str]) -> list[str]:
    """The variables of whoever asks that this gateway does not take over."""
    started = [os.environ, *(part.env for part in plan.parts)]
    config = next((environment["MGW_CONFIG"] for environment in started[1:] if "MGW_CONFIG" in environment), None)
    return kept_environment.kept(here, started, kept_environment.read_document(config))


def say(text: str) -> None:
    sys.stderr.write(f"mgw: {text}\n")
    sys.stderr.flush()
