"""What `mgw up` starts, keeps and takes down, with the parts that need no configuration."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mgw import Mgw
from tests.support.ports import is_reachable
from tests.support.waiting import eventually

LIGHT = ("up", "--detach", "--only", "redis,demo")
FORKING = f"{sys.executable} -c 'import subprocess, sys; subprocess.run(sys.argv[1:])'"
"""A wrap that stays in between, so that the part is the supervisor's grandchild."""


def test_parts_run_until_down_and_then_are_gone(mgw: Mgw) -> None:
    """After `up --detach` the parts answer, `status` says so; after `down` nothing is left but state and logs."""
    up = mgw(*LIGHT)
    assert (up.returncode, "ready after" in up.stderr) == (0, True)
    components = mgw.run["components"]
    assert [c["name"] for c in components] == ["redis", *["demo"] * 4]
    assert all(is_reachable(c["address"]) for c in components)
    assert (mgw.directory / "run.json").stat().st_mode & 0o777 == 0o600
    status = mgw("status", "--json")
    assert (status.returncode, json.loads(status.stdout)["up"]) == (0, True)
    assert "api_token" not in status.stdout

    assert mgw("down").returncode == 0

    assert eventually(lambda: not any(is_reachable(c["address"]) for c in components))
    assert not (mgw.directory / "run.json").exists()
    assert mgw("status").returncode == 69
    assert mgw("down").returncode == 0


def test_another_secret_in_the_environment_is_not_taken_over_in_silence(mgw: Mgw) -> None:
    """`up --only` goes on with what the gateway was started with, and names what is another one by now."""
    mgw(*LIGHT, JWT_SECRET="o" * 32, LOG_LEVEL="info")

    same = mgw("up", "--only", "redis", JWT_SECRET="o" * 32, LOG_LEVEL="info", HOME="/nowhere")
    other = mgw("up", "--only", "redis", JWT_SECRET="n" * 32, LOG_LEVEL="debug")
    without = mgw("up", "--only", "redis")

    assert "not taken over: JWT_SECRET, LOG_LEVEL. This gateway keeps what it was started with" in other.stderr
    assert "not taken over" not in same.stderr + without.stderr
    assert [each.returncode for each in (same, other, without)] == [0, 0, 0]


def test_the_secret_that_it_made_is_no_other_one(mgw: Mgw) -> None:
    """Whoever exports what the gateway has chosen for itself says the same."""
    mgw(*LIGHT)
    secret = (mgw.directory / "jwt_secret").read_text().strip()

    assert "not taken over" not in mgw("up", "--only", "redis", JWT_SECRET=secret).stderr
    assert "not taken over: JWT_SECRET" in mgw("up", "--only", "redis", JWT_SECRET=secret + "x").stderr


def test_a_part_that_was_killed_stays_dead_until_it_is_asked_for(mgw: Mgw) -> None:
    """Death is told and left alone; `up --only` brings the part back at its old address, with a new pid."""
    mgw(*LIGHT)
    before = mgw.component("redis")

    os.kill(before["pid"], signal.SIGKILL)
    assert eventually(lambda: mgw("status").returncode == 69)
    assert not is_reachable(before["address"])
    log = mgw.directory / "log" / "supervisor.log"
    assert eventually(lambda: "redis-0" in log.read_text() and "SIGKILL" in log.read_text())

    revived = mgw("up", "--only", "redis")
    assert (revived.returncode, "started redis-0" in revived.stderr) == (0, True)
    after = mgw.component("redis")
    assert after["address"] == before["address"]
    assert after["pid"] != before["pid"]
    assert is_reachable(after["address"])
    assert "already" in mgw("up", "--only", "redis").stderr


def test_a_directory_has_one_gateway(mgw: Mgw) -> None:
    """A second `up` says that it is up, and where."""
    mgw(*LIGHT)

    second = mgw("up", "--detach")

    assert second.returncode == 1
    assert mgw.run["gateway"] in second.stderr


@pytest.mark.parametrize("wrap", [[], ["--wrap", f"redis={FORKING}", "--wrap", f"demo-1={FORKING}"]])
def test_nothing_outlives_a_killed_supervisor(mgw: Mgw, wrap: list[str]) -> None:
    """`kill -9` of the supervisor takes every part along, what a wrapping command forked included."""
    mgw(*LIGHT, *wrap)
    processes = mgw.processes()
    assert len(processes) >= 5 + len(wrap) // 2
    components = mgw.run["components"]

    os.kill(mgw.supervisor, signal.SIGKILL)

    assert eventually(lambda: not mgw.processes())
    assert eventually(
        lambda: not any(is_reachable(c["address"]) for c in components)
    )  # the kernel closes them by and by
    status = json.loads(mgw("status", "--json").stdout)
    assert [c["alive"] for c in status["components"]] == [False] * 5
    assert mgw(*LIGHT).returncode == 0


def test_a_wrapped_part_dies_whole(mgw: Mgw) -> None:
    """When a wrapping command is killed, what it wrapped goes too, so that the part can come back."""
    mgw(*LIGHT, "--wrap", f"redis={FORKING}")
    redis = mgw.component("redis")

    os.kill(redis["pid"], signal.SIGKILL)

    assert eventually(lambda: not is_reachable(redis["address"]))
    assert mgw("up", "--only", "redis", "--wrap", "redis=env").returncode == 0
    assert is_reachable(redis["address"])


def test_a_stopped_part_does_not_hold_up_down(mgw: Mgw) -> None:
    """A part under SIGSTOP is woken to be ended."""
    mgw(*LIGHT)
    os.kill(mgw.component("demo", 2)["pid"], signal.SIGSTOP)

    assert mgw("down").returncode == 0


def test_a_part_that_cannot_start_is_named_with_its_log(mgw: Mgw) -> None:
    """`up` fails with the end of the log of the part that failed, and leaves nothing running."""
    failing = f"{sys.executable} -c 'print(\"this is why\"); raise SystemExit(3)'"

    up = mgw(*LIGHT, "--wrap", f"demo-2={failing}")

    assert up.returncode == 1
    assert "demo-2 ended with status 3" in up.stderr
    assert "this is why" in up.stderr
    assert mgw("status").returncode == 69


def test_a_command_that_is_not_there_is_named(mgw: Mgw) -> None:
    """A wrap that cannot be run is an error of the start, not a traceback."""
    up = mgw(*LIGHT, "--wrap", "redis=/no/such/command")

    assert up.returncode == 1
    assert "cannot start redis-0" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_port_in_use_names_its_holder(mgw: Mgw) -> None:
    """A given port that somebody has: status 1, with the process that has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        ups = [mgw(*LIGHT, "--port", port), mgw(*LIGHT, API_GATEWAY_PORT=port)]

    assert [up.returncode for up in ups] == [1, 1]
    assert all(f"port {port} is in use by " in up.stderr and f"(pid {os.getpid()})" in up.stderr for up in ups)


def test_a_missing_configuration_is_named(mgw: Mgw) -> None:
    """A --config that is no file is told before anything starts."""
    up = mgw("up", "--detach", "--config", "/no/such.yaml")

    assert (up.returncode, "/no/such.yaml" in up.stderr) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_it_well(mgw: Mgw, number: signal.Signals) -> None:
    """The parts' logs show on standard error behind their names; Ctrl-C stops everything with status 0."""
    command = mgw.command("up", "--only", "redis,demo")
    process = subprocess.Popen(command, env=mgw.environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "ready after" in line:
            break
    components = mgw.run["components"]

    process.send_signal(number)
    rest = process.stderr.read()

    assert process.wait(20) == 0
    assert re.search(r"^demo-0 +\| discovery listens on", "".join(lines) + rest, re.M)
    assert not any(is_reachable(c["address"]) for c in components)
    assert not (mgw.directory / "run.json").exists()


def test_a_long_path_is_no_trouble(tmp_path: Path) -> None:
    """A directory may be deeper than a unix socket's address may be long."""
    mgw = Mgw(tmp_path / ("d" * 120) / "run")

    assert mgw("up", "--detach", "--only", "redis").returncode == 0
    assert mgw("down").returncode == 0


def test_the_secret_is_made_once(mgw: Mgw) -> None:
    """Without JWT_SECRET a random one is made, said, and kept for the next start."""
    first = mgw(*LIGHT)
    secret = (mgw.directory / "jwt_secret").read_text()
    mgw("down")
    second = mgw(*LIGHT)

    assert ("JWT_SECRET is not set" in first.stderr, "JWT_SECRET" in second.stderr) == (True, False)
    assert (mgw.directory / "jwt_secret").read_text() == secret


TAKES_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it starts with `&` ignore it
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_giving_up_while_it_starts_leaves_nothing(mgw: Mgw) -> None:
    """Ctrl-C before a detached start is ready takes the daemon along."""
    stuck = f"{sys.executable} -c 'import signal; signal.pause()'"
    process = subprocess.Popen(
        [sys.executable, "-c", TAKES_SIGINT, *mgw.command(*LIGHT, "--wrap", f"redis={stuck}")], env=mgw.environment
    )
    assert eventually((mgw.directory / "run.json").exists)
    demo = mgw.component("demo")["address"]

    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 130
    assert not is_reachable(demo)
    assert mgw("status").returncode == 69
