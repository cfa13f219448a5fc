"""Contract 8 and 10: configuration changes live, whole or not at all, and no client notices the change itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2
import pytest

from tests.support.gateway import Gateway, a_route, default_document, token
from tests.support.waiting import during_async, eventually

PATH = "/api/v1/genres"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose configuration may be changed."""
    with Gateway(tmp_path_factory.mktemp("config") / "run", "--envoy", "2", document=default_document()) as running:
        yield running


@pytest.fixture(autouse=True)
def restored(gateway: Gateway) -> Iterator[None]:
    yield
    answer = gateway.put_config(default_document())
    assert answer.status_code == 200, answer.text


def put(gateway: Gateway, document: dict[str, Any]) -> httpx2.Response:
    answer = gateway.put_config(document)
    assert answer.status_code == 200, answer.text
    return answer


def asks(gateway: Gateway, path: str, **headers: str) -> int:
    return gateway.ask(path, headers=list(headers.items()), bearer_token=token(tier="pro")).status


def _is(gateway: Gateway, target: str, status: int, address: str | None = None) -> bool:
    return gateway.ask(target, bearer_token=token(), address=address).status == status


def test_a_route_comes_changes_and_goes(gateway: Gateway) -> None:
    """A new route is served, a moved one reaches its new service, a removed one is 404, all without a restart."""
    pid = gateway.component("envoy")["pid"]
    served_by = []
    for service in ("sona", "sync", None):
        document = default_document()
        if service:
            document["routes"].append(a_route("new", service))
        put(gateway, document)
        expected = 200 if service else 404
        assert eventually(partial(_is, gateway, "/t/new", expected))
        if service:

            def server(service: str = service) -> bool:
                return gateway.ask("/t/new", bearer_token=token()).value("x-demo-service") == service

            assert eventually(server)
            served_by.append(service)

    assert served_by == ["sona", "sync"]
    assert gateway.component("envoy")["pid"] == pid


def test_a_tier_changes_for_the_next_request(gateway: Gateway) -> None:
    """New numbers hold at once for callers who are known already; what they spent stays spent."""
    caller = token(tier="pro")
    first = gateway.ask(PATH, bearer_token=caller)
    document = default_document()
    document["limits"]["tiers"]["pro"] = {"rps": 50, "rpm": 500, "burst": 100}

    put(gateway, document)

    assert first.value("x-ratelimit-remaining") == "999"
    answer = eventually(
        lambda: (got := gateway.ask(PATH, bearer_token=caller)).value("x-ratelimit-limit") == "500" and got
    )
    assert answer
    assert int(answer.value("x-ratelimit-remaining") or 999) <= 498


def test_a_new_tier_can_be_used(gateway: Gateway) -> None:
    """A tier that did not exist is honoured once it does."""
    document = default_document()
    document["limits"]["tiers"]["gold"] = {"rps": 5, "rpm": 777, "burst": 7}

    put(gateway, document)

    assert eventually(lambda: gateway.ask(PATH, bearer_token=token(tier="gold")).value("x-ratelimit-limit") == "777")


async def test_no_request_is_lost_over_ten_changes(gateway: Gateway) -> None:
    """Clients that keep their connections see nothing but 200 while routes, tiers and services change ten times."""
    statuses: list[int] = []
    stop = asyncio.Event()

    async def loop(client: httpx2.AsyncClient) -> None:
        caller = {"Authorization": f"Bearer {token(tier='enterprise')}"}
        async for _ in during_async(60, every=0.01):
            if stop.is_set():
                break
            answer = await client.get(PATH, headers=caller)
            statuses.append(answer.status_code)

    async with gateway.client() as client:
        loops = [asyncio.create_task(loop(client)) for _ in range(4)]
        for number in range(10):
            document = default_document()
            document["routes"].append(a_route(f"n{number}", "sona"))
            document["limits"]["tiers"]["pro"]["rpm"] = 1000 + number
            document["services"][0]["timeout_seconds"] = 20 + number
            answer = await asyncio.to_thread(gateway.put_config, document)
            assert answer.status_code == 200, answer.text
        stop.set()
        await asyncio.gather(*loops)

    assert len(statuses) > 40
    assert set(statuses) == {200}


def test_a_document_with_mistakes_is_refused_whole(gateway: Gateway) -> None:
    """Every mistake is told with its path, and nothing of the document is in force."""
    revision = gateway.api("GET", "/v1/config").headers["etag"]
    document = default_document()
    document["routes"].append(a_route("good", "sona"))
    document["routes"].append(a_route("lost", "nowhere"))
    document["limits"]["tiers"]["pro"]["rps"] = -1
    document["services"][0]["endpoints"][0]["url"] = "ftp://x"
    document["colour"] = "blue"

    answer = gateway.put_config(document)

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    paths = {problem["path"] for problem in answer.json()["problems"]}
    assert paths >= {
        f"routes.{len(document['routes']) - 1}.service",
        "limits.tiers.pro.rps",
        "services.0.endpoints.0.url",
        "colour",
    }
    assert gateway.api("GET", "/v1/config").headers["etag"] == revision
    assert asks(gateway, "/t/good") == 404
    assert gateway.ask(PATH, bearer_token=token(tier="pro")).value("x-ratelimit-limit") == "1000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [([], 428), ([("If-Match", '"999"')], 412), ([("If-Match", "nonsense")], 412)],
)
def test_a_write_says_what_it_is_based_on(gateway: Gateway, headers: list[tuple[str, str]], status: int) -> None:
    """Without If-Match a write is 428, with an old revision 412, and neither changes anything."""
    before = gateway.api("GET", "/v1/config")

    answer = gateway.api(
        "PUT", "/v1/config", content=before.text, headers=[*headers, ("Content-Type", "application/yaml")]
    )

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert gateway.api("GET", "/v1/config").headers["etag"] == before.headers["etag"]


@pytest.mark.parametrize("path", ["/v1/config", "/v1/nodes"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
def test_operators_need_a_token(gateway: Gateway, path: str, headers: dict[str, str]) -> None:
    """Every operator call without a good token is 401."""
    with httpx2.Client(trust_env=False) as client:
        answer = client.get(gateway.run["api"] + path, headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


def test_secrets_stay_references(gateway: Gateway) -> None:
    """The document is answered as it was written, with `${JWT_SECRET}` in place of its value."""
    text = gateway.api("GET", "/v1/config").text

    assert "${JWT_SECRET}" in text
    assert gateway.mgw.environment["JWT_SECRET"] not in text


def test_nodes_tell_what_each_acknowledged(gateway: Gateway) -> None:
    """Every Envoy and service acknowledged what was sent last, of every type, and rejected nothing."""
    document = default_document()
    document["routes"].append(a_route("told", "sona"))
    put(gateway, document)

    def settled() -> Any:
        nodes = {node["id"]: node["types"] for node in gateway.api("GET", "/v1/nodes").json()["nodes"]}
        entries = [entry for types in nodes.values() for entry in types]
        acknowledged = all(entry["version_sent"] == entry["version_acknowledged"] for entry in entries)
        return nodes if acknowledged and not any(entry["rejected"] for entry in entries) else None

    nodes = eventually(settled)

    assert nodes, "not all was acknowledged"
    assert set(nodes) == {"envoy-0", "envoy-1", "authz-0", "ratelimit-0"}
    kinds = {entry["type_url"].rpartition(".")[2] for entry in nodes["envoy-0"]}
    assert kinds >= {"Cluster", "Listener", "RouteConfiguration"}


def test_both_envoys_follow(gateway: Gateway) -> None:
    """A change reaches every Envoy."""
    document = default_document()
    document["routes"].append(a_route("both", "sona"))
    put(gateway, document)

    for index in (0, 1):
        address = gateway.component("envoy", index)["address"]
        with contextlib.suppress(AssertionError):
            eventually(partial(_is, gateway, "/t/both", 200, address))
        assert gateway.ask("/t/both", address=address).status == 200
