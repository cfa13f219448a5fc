"""The control plane as a process: what it needs to start, what it then serves, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from controlplane.breakers.override_file import NAME
from tests.support.configs import DEFAULT, ROOT, default_text
from tests.support.ports import free_port, is_reachable
from tests.support.waiting import eventually

TOKENS = {f"MGW_API_TOKEN{role}": f"hush-{role or 'admin'}" for role in ("", "_EDITOR", "_VIEWER")}


class ControlPlane:
    """One process, with ports of its own and nothing else of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.xds, self.api = (f"127.0.0.1:{free_port()}" for _ in "xa")
        self.process: subprocess.Popen[str] | None = None

    def start(self, **environment: str) -> subprocess.Popen[str]:
        own = {"PATH": os.environ["PATH"], "MGW_CONFIG": str(DEFAULT), "MGW_ENVOY_BIN": "/no/such/envoy"}
        own |= {"MGW_XDS_LISTEN": self.xds, "MGW_API_LISTEN": self.api, **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "controlplane"],
            cwd=ROOT,
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def ready(self, **environment: str) -> list[dict[str, Any]]:
        """Start it; its log until it is ready."""
        process = self.start(**environment)
        assert process.stdout is not None
        entries = []
        for line in process.stdout:
            entries.append(json.loads(line))
            if entries[-1]["event"] == "controlplane.ready":
                assert eventually(lambda: is_reachable(self.api), 20)
                return entries
        raise AssertionError(f"it ended: {process.communicate()[1]}")

    def ends(self) -> tuple[int, str, str]:
        """Its status, and what it said, when it has ended."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def ask(self, path: str, token: str = "", method: str = "GET", **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx2.request(method, f"http://{self.api}{path}", headers=headers, timeout=20, **more)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path)
    yield plane
    if plane.process is not None:
        plane.process.kill()
        plane.process.communicate()


def test_it_serves_what_it_was_given(plane: ControlPlane) -> None:
    """The document is in force as revision 1, of nobody but the file; xDS and the API take calls."""
    entries = plane.ready(**TOKENS)

    answer = plane.ask("/v1/config", "hush-admin")

    assert (answer.status_code, answer.text, answer.headers["etag"]) == (200, default_text(), '"1"')
    assert is_reachable(plane.xds)
    published = next(entry for entry in entries if entry["event"] == "config.published")
    assert (published["revision"], published["author"], published["component"]) == (1, "file", "controlplane")
    assert plane.ask("/health/live").json() == {"status": "alive"}


def test_each_token_has_its_role(plane: ControlPlane) -> None:
    """A viewer reads, an editor changes breakers, and a token that is not set is nobody's."""
    plane.ready(**TOKENS)
    forced: dict[str, Any] = {"method": "PUT", "json": {"force": "auto"}}

    statuses = {token: plane.ask("/v1/breakers/sona", token, **forced).status_code for token in TOKENS.values()}

    assert statuses == {"hush-admin": 200, "hush-_EDITOR": 200, "hush-_VIEWER": 403}
    assert plane.ask("/v1/nodes", "hush-_VIEWER").status_code == 200
    assert [plane.ask("/v1/nodes", token).status_code for token in ("", "hush", "None")] == [401] * 3


def test_without_a_token_nobody_operates_it(plane: ControlPlane) -> None:
    """It starts all the same: health and xDS need none."""
    plane.ready()

    assert plane.ask("/v1/nodes", "").status_code == 401
    assert plane.ask("/health/live").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(plane: ControlPlane, number: signal.Signals) -> None:
    """With status 0; no token is in its log, and its ports are free again."""
    plane.ready(**TOKENS, JWT_SECRET="hush-secret")
    plane.ask("/v1/nodes", "hush-admin")

    assert plane.process is not None
    plane.process.send_signal(number)
    status, out, err = plane.ends()

    assert (status, err) == (0, "")
    assert "hush" not in out
    assert not is_reachable(plane.xds)
    assert not is_reachable(plane.api)


def test_without_an_envoy_it_says_that_nobody_judges(plane: ControlPlane) -> None:
    """It is a warning: the nodes themselves still reject what they cannot run."""
    (warning,) = [entry for entry in plane.ready() if entry["event"] == "envoy.no_judge"]

    assert warning["level"] == "warning"
    assert "/no/such/envoy" in warning["error"]


def test_with_an_envoy_a_document_is_judged(plane: ControlPlane, envoy_binary: Path) -> None:
    """Before it is in force."""
    entries = plane.ready(MGW_ENVOY_BIN=str(envoy_binary))

    assert not [entry for entry in entries if entry["event"] == "envoy.no_judge"]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"MGW_XDS_LISTEN": "nowhere"}, "MGW_XDS_LISTEN='nowhere'"),
        ({"MGW_AUTHZ_ADDRESSES": "http://authz:18010"}, "MGW_AUTHZ_ADDRESSES='http://authz:18010'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='loud'"),
        ({"MGW_CONFIG": "/no/such.yaml"}, "/no/such.yaml"),
        ({"MGW_CONFIG": "/dev"}, "/dev"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_start_says_why_in_one_line(plane: ControlPlane, environment: dict[str, str], says: str) -> None:
    """On standard error, with status 1."""
    plane.start(**environment)

    status, _, err = plane.ends()

    assert status == 1
    assert err.startswith("the control plane cannot start: ")
    assert err.count("\n") == 1
    assert says in err


def test_a_bad_document_is_told_whole(plane: ControlPlane) -> None:
    """Every problem with its place in the file, and nothing is served."""
    config = plane.folder / "gateway.yaml"
    config.write_text(
        default_text().replace("trusted_hops: 0", "trusted_hobs: 0").replace("service: sona, a", "service: x, a")
    )
    plane.start(MGW_CONFIG=str(config))

    status, _, err = plane.ends()

    assert status == 1
    assert [line.rpartition(": ")[0].rpartition(" ")[2] for line in err.splitlines()] == [
        "listener.trusted_hobs",
        "routes.16.service",
    ]
    assert all(line.startswith(f"{config}:") for line in err.splitlines())


def test_a_document_that_is_no_text(plane: ControlPlane) -> None:
    """One line, no traceback."""
    config = plane.folder / "gateway.yaml"
    config.write_bytes(b"\xff\xfe")
    plane.start(MGW_CONFIG=str(config))

    status, _, err = plane.ends()

    assert (status, err.count("\n")) == (1, 1)
    assert "utf-8" in err


def test_a_json_document_is_kept_as_json(plane: ControlPlane) -> None:
    """By the file's name, and answered as that."""
    config = plane.folder / "gateway.json"
    values = default_text()
    config.write_text(values)
    plane.ready(**TOKENS, MGW_CONFIG=str(config))

    assert plane.ask("/v1/config", "hush-admin").headers["content-type"] == "application/json"


@pytest.mark.parametrize("which", ["xds", "api"])
def test_an_address_that_is_taken(plane: ControlPlane, which: str) -> None:
    """It ends with status 1 and says so, rather than serving half of what it should."""
    address: str = getattr(plane, which)
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        plane.start()
        status, _, err = plane.ends()

    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("the control plane cannot start: ")
    assert address in last


def test_what_was_forced_holds_after_a_restart(plane: ControlPlane) -> None:
    """It is in the state directory; a file there that makes no sense stops the start."""
    state = plane.folder / "state"
    plane.ready(**TOKENS, MGW_STATE_DIR=str(state))
    plane.ask("/v1/breakers/sona", "hush-admin", "PUT", json={"force": "open", "reason": "moved"})
    assert plane.process is not None
    plane.process.kill()
    plane.ends()

    plane.ready(**TOKENS, MGW_STATE_DIR=str(state))
    found = plane.ask("/v1/breakers/sona", "hush-admin").json()
    plane.process.terminate()
    plane.ends()
    (state / NAME).write_text("[]")
    plane.start(MGW_STATE_DIR=str(state))
    status, _, err = plane.ends()

    assert (found["state"], found["force"]["reason"]) == ("open", "moved")
    assert status == 1
    assert f"{state / NAME}" in err
    assert "remove it to force nothing" in err
