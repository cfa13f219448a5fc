"""The whole gateway by one command: real Envoy, real Valkey, every part in two replicas."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.mgw import Mgw
from tests.support.waiting import eventually


def ask(url: str, token: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_demo_gateway_serves_when_up_returns(mgw: Mgw) -> None:
    """`up --demo --detach` prints a token a tier and commands to try, and every Envoy serves at once."""
    up = mgw("up", "--demo", "--detach", "--envoy", "2", "--authz", "2", "--ratelimit", "2")
    assert up.returncode == 0, up.stderr
    assert all(f"\n{tier}=" in up.stdout for tier in ("FREE", "PRO", "ENTERPRISE"))
    token = mgw("token", "--sub", "ann", "--tier", "pro").stdout.strip()

    for index in (0, 1):
        url = f"http://{mgw.component('envoy', index)['address']}"
        status, echo = ask(f"{url}/api/v1/user/profile", token)
        assert (status, echo["service"], dict(echo["headers"])["x-user-id"]) == (200, "auth", "ann")
        assert ask(f"{url}/api/v1/user/profile")[0] == 401
        assert ask(f"{url}/nowhere")[0] == 404

    pids = [mgw.component("authz", index)["pid"] for index in (0, 1)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: ask(f"{mgw.run['gateway']}/api/v1/user/profile", token)[0] == 503)
    assert mgw("up", "--only", "authz").returncode == 0
    assert eventually(lambda: ask(f"{mgw.run['gateway']}/api/v1/user/profile", token)[0] == 200)


def test_a_bad_configuration_is_told_whole(mgw: Mgw) -> None:
    """Every problem of the configuration is printed with its place, with status 1, and nothing is left running."""
    config = mgw.directory.parent / "bad.yaml"
    config.write_text("version: 1\nlistner: {}\nroutes: [{name: x}]\n")

    up = mgw("up", "--detach", "--config", str(config))

    assert up.returncode == 1
    assert f"{config}:2:1: listner:" in up.stderr
    assert "routes.0.match" in up.stderr
    assert mgw("status").returncode == 69


def test_requests_that_run_are_finished_before_it_stops(mgw: Mgw) -> None:
    """`down` waits for a request that an upstream is still working on."""
    mgw("up", "--demo", "--detach")
    request = urllib.request.Request(f"{mgw.run['gateway']}/api/v1/content/1", headers={"x-demo-delay": "1"})
    hits = f"http://{mgw.component('demo')['address']}/_demo/hits"

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: urllib.request.urlopen(request, timeout=10).status)
        assert eventually(lambda: ask(hits)[1]["hits"] == 1)
        assert mgw("down").returncode == 0

        assert running.result() == 200
