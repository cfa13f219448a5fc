"""Contract 9: one run with two of everything, what `run.json` and `mgw status` say of it, and how it ends."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, bearer, token
from tests.support.mgw import runs
from tests.support.waiting import eventually

PATH = "/api/v1/genres"
TWO = {"envoy": 2, "controlplane": 1, "authz": 2, "ratelimit": 2, "redis": 1, "demo": 4}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two Envoys, two authz and two rate-limit services."""
    options = ("--envoy", "2", "--authz", "2", "--ratelimit", "2")
    with Gateway(tmp_path_factory.mktemp("two") / "run", *options) as running:
        yield running


def test_the_shape_of_run_json(gateway: Gateway) -> None:
    """It names every part with its process, address, admin, metrics and log, and is for its owner's eyes only."""
    run = gateway.run

    assert set(run) == {"gateway", "api", "api_token", "redis_url", "state_dir", "components"}
    assert run["gateway"] == f"http://{gateway.component('envoy')['address']}"
    assert run["state_dir"] == str(gateway.directory)
    assert len(run["api_token"]) >= 32
    assert {name: sum(part["name"] == name for part in run["components"]) for name in TWO} == TWO
    for part in run["components"]:
        assert set(part) == {"name", "index", "pid", "address", "admin", "metrics", "log"}
        assert runs(part["pid"])
        assert (gateway.directory / "log").joinpath(part["log"]).exists()
    assert (gateway.directory / "run.json").stat().st_mode & 0o777 == 0o600


def test_every_address_is_private(gateway: Gateway) -> None:
    """Every part listens on loopback alone."""
    for part in gateway.run["components"]:
        urls = [url for url in (part["admin"], part["metrics"]) if url]
        assert part["address"].startswith("127.0.0.1:")
        assert all(url.startswith("http://127.0.0.1:") for url in urls)


def test_metrics_are_prometheus_text(gateway: Gateway) -> None:
    """Every part that has metrics answers them in the text format."""
    parts = [part for part in gateway.run["components"] if part["metrics"]]

    assert {part["name"] for part in parts} == {"envoy", "controlplane", "authz", "ratelimit"}
    for part in parts:
        with urllib.request.urlopen(part["metrics"], timeout=5) as answer:
            assert answer.headers["content-type"].startswith("text/plain")
            assert "# TYPE " in answer.read().decode()


def test_both_envoys_share_one_budget(gateway: Gateway) -> None:
    """A caller's requests are counted together, whichever Envoy and whichever replica takes them."""
    caller = token(tier="pro")

    left = [
        gateway.ask(PATH, bearer_token=caller, address=gateway.component("envoy", number % 2)["address"])
        for number in range(12)
    ]

    assert [int(answer.value("x-ratelimit-remaining") or 0) for answer in left] == list(range(999, 987, -1))


async def test_a_burst_over_both_envoys_is_exact(gateway: Gateway) -> None:
    """Side by side over two Envoys and two replicas, no more pass than one replica would let through."""
    headers = [bearer(token(tier="free"))]
    urls = [f"http://{gateway.component('envoy', index)['address']}{PATH}" for index in (0, 1)]
    loop = asyncio.get_running_loop()
    async with gateway.client(headers=headers) as client:
        began = loop.time()
        answers = await asyncio.gather(*(client.get(urls[number % 2]) for number in range(60)))
        seconds = loop.time() - began

    passed = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert 20 <= passed <= 20 + 10 * seconds + 1


@pytest.mark.parametrize("name", ["authz", "ratelimit"])
def test_one_replica_less_is_not_noticed(gateway: Gateway, name: str) -> None:
    """With one of two gone, requests are soon answered as ever; started again, it is the same replica."""
    address = gateway.component(name, 1)["address"]
    gateway.kill(name, 1)

    def well() -> bool:
        answers = [gateway.ask("/api/v1/user/profile", bearer_token=token(tier="pro")) for _ in range(8)]
        return all((answer.status, answer.value("x-ratelimit-limit")) == (200, "1000") for answer in answers)

    assert eventually(well, 3)
    gateway.revive(f"{name}-1")
    assert gateway.component(name, 1)["address"] == address
    assert runs(gateway.component(name, 1)["pid"])
    assert eventually(well, 3)


def test_status_tells_the_dead_from_the_living(gateway: Gateway) -> None:
    """`mgw status` is 0 while all parts run, and 69 with one dead; its JSON says which, and no secret."""
    well = gateway.mgw("status", "--json")
    gateway.kill("demo", 3)
    ill = gateway.mgw("status", "--json")
    gateway.revive("demo")

    alive = {(part["name"], part["index"]): part["alive"] for part in json.loads(ill.stdout)["components"]}
    assert (well.returncode, json.loads(well.stdout)["up"]) == (0, True)
    assert (ill.returncode, [part for part, lives in alive.items() if not lives]) == (69, [("demo", 3)])
    assert gateway.run["api_token"] not in well.stdout + gateway.mgw("status").stdout


def test_a_second_up_is_refused(gateway: Gateway) -> None:
    """A directory that is up stays as it is: status 1, and what to do instead."""
    before = gateway.run

    again = gateway.up()

    assert again.returncode == 1
    assert "mgw down" in again.stderr
    assert gateway.run == before


def test_zz_down_leaves_nothing(gateway: Gateway) -> None:
    """`mgw down` ends every process and takes run.json away; once more, it is fine with that."""
    pids = [part["pid"] for part in gateway.run["components"]]

    assert [gateway.mgw("down").returncode for _ in range(2)] == [0, 0]
    assert [pid for pid in pids if runs(pid)] == []
    assert not (gateway.directory / "run.json").exists()
    assert gateway.mgw("status").returncode == 69
