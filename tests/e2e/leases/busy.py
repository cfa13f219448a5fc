"""A busy caller, what it is told, and the document that gives it leases."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

from ratelimit_service.leases import MAX_REQUESTS
from tests.support.gateway import Gateway, a_route, default_document, token
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

PATH = "/t/busy"
HEAVY = {"rps": 4000, "rpm": 60_000, "burst": 4000}
TIGHT = {"rps": 1, "rpm": 6000, "burst": 6000}
LOW = {"rps": 1, "rpm": 5, "burst": 5}
TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy")
HELD = 2 * MAX_REQUESTS
"""What one Envoy worker may hold of a caller: the lease it spends, and the one that follows."""
Document = dict[str, Any]


class Passage(NamedTuple):
    """One request: when it was sent and answered, and the answer."""

    sent: float
    at: float
    answer: Answer


def the_document(**limits: Any) -> Document:
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["limits"]["tiers"] |= {"heavy": dict(HEAVY), "tight": dict(TIGHT)}
    document["limits"] |= limits
    document["services"].append(
        {
            "name": "patient",
            "endpoints": [{"url": "${DISCOVERY_SERVICE_URL}"}],
            "health_check": None,
            "breaker": {"failures": 10_000, "error_rate_percent": 100},
        }
    )
    browsed = {"path": "/t/browsed", "methods": ["GET", "OPTIONS"]}
    document["routes"] += [
        a_route("busy", "patient"),
        a_route("small", "patient", max_request_bytes=100),
        a_route("browsed", "patient") | {"match": browsed},
        a_route("required", "patient", auth="required"),
        a_route("members", "patient", auth="required", tiers=["pro"]),
        a_route("scoped", "patient", auth="required", scopes=["admin"]),
        a_route("claimed", "patient", auth="required", claims={"plan": "gold"}),
    ]
    return document


def request_of(credential: tuple[str, str], path: str, more: Sequence[tuple[str, str]] = ()) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: gateway.test", *(f"{name}: {value}" for name, value in (credential, *more))]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def hammer(
    address: str,
    data: bytes,
    requests: int = 1_000_000,
    seconds: float = 60,
    stop: threading.Event | None = None,
    seen: list[Passage] | None = None,
) -> list[Passage]:
    """Ask over one connection without a pause, so many times or for so long; `seen` has all answers so far."""
    passages: list[Passage] = []
    began = time.monotonic()
    with Connection(address) as connection:
        while len(passages) < requests and time.monotonic() - began < seconds and not (stop and stop.is_set()):
            sent = time.monotonic()
            connection.send(data)
            answer = connection.receive()
            assert answer is not None, "the connection was closed"
            passages.append(Passage(sent, time.monotonic(), answer))
            if seen is not None:
                seen.append(passages[-1])
    return passages


def hammer_all(addresses: Sequence[str], data: bytes, connections: int, **how: Any) -> list[Passage]:
    """The same over many connections at once, spread over the addresses; in the order of the answers."""
    with ThreadPoolExecutor(connections) as threads:
        asked = [threads.submit(hammer, addresses[n % len(addresses)], data, **how) for n in range(connections)]
        return sorted((passage for each in asked for passage in each.result()), key=lambda passage: passage.at)


@contextlib.contextmanager
def hammered(gateway: Gateway, data: bytes, connections: int = 4) -> Iterator[list[Passage]]:
    """A busy caller meanwhile, who has leases when this begins; the list grows with every answer."""
    seen: list[Passage] = []
    stop = threading.Event()
    before = decisions(gateway)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(hammer_all, addresses(gateway), data, connections, stop=stop, seen=seen)
        try:
            assert eventually(lambda: len(seen) > max(HELD, 2 * (decisions(gateway) - before)), 20), "no leases"
            yield seen
        finally:
            stop.set()
            asked.result()
            seen.sort(key=lambda passage: passage.at)


def wait_for_answers(passages: Sequence[Passage], since: float, number: int = 100, status: int | None = None) -> None:
    """Until so many requests that were sent after `since` are answered, with this status where one is given."""

    def answered() -> int:
        return sum(each.sent > since and status in (None, each.answer.status) for each in tuple(passages))

    assert eventually(lambda: answered() >= number, 30), f"{answered()} of {number} answers"


def passed(passages: Sequence[Passage]) -> list[Passage]:
    """Those that the service answered; whatever else there is must be a refusal of the limiter."""
    statuses = Counter(passage.answer.status for passage in passages)
    assert statuses.keys() <= {200, 429}, statuses
    return [passage for passage in passages if passage.answer.status == 200]


def addresses(gateway: Gateway, envoys: int = 1) -> list[str]:
    return [gateway.component("envoy", index)["address"] for index in range(envoys)]


def decisions(gateway: Gateway, replicas: int = 1, mode: str = "") -> float:
    """How many requests the service has been asked about."""
    lines = [line for index in range(replicas) for line in gateway.metrics("ratelimit", index).splitlines()]
    counted = [line for line in lines if line.startswith("mgw_ratelimit_decisions_total{") and mode in line]
    return sum(float(line.split()[-1]) for line in counted)


def let_pass(gateway: Gateway) -> int:
    """How many requests Envoy let pass by itself, because the service did not answer in the time that it has."""
    stats = gateway.read(gateway.component("envoy")["admin"] + "/stats?filter=ratelimit.failure_mode_allowed").split(
        "\n"
    )
    return sum(int(line.rpartition(":")[2]) for line in stats if line)


def telling(gateway: Gateway, passages: Sequence[Passage], let_pass_before: int) -> list[Passage]:
    """Those whose answer tells all that answers tell of limits: every one but those that Envoy let pass by itself."""
    found = [passage for passage in passages if all(passage.answer.value(name) is not None for name in TOLD)]
    silent = [passage for passage in passages if all(passage.answer.value(name) is None for name in TOLD)]
    assert len(found) + len(silent) == len(passages), "an answer tells half of it"
    assert len(silent) <= let_pass(gateway) - let_pass_before
    return found


def the_tier(gateway: Gateway, caller: str, tier: str) -> Any:
    """The caller's own budget, as an operator sees it."""
    told = gateway.operate("GET", caller, f"limits?tier={tier}")
    return next(rule for rule in told["rules"] if rule["rule"] == "tier")


_numbers = count(1)


def put_live(gateway: Gateway, document: Document) -> None:
    """Make a document current, and wait until workers and the service have it: a path and a tier that only it has."""
    document, number = copy.deepcopy(document), next(_numbers)
    document["limits"]["tiers"]["marker"] = HEAVY | {"rpm": 90_000 + number}
    document["routes"].append(a_route(f"revision-{number}", "patient"))
    assert gateway.put_config(document).status_code == 200

    def holds() -> bool:
        answers = [gateway.ask(f"/t/revision-{number}", bearer_token=token(tier="marker")) for _ in range(5)]
        told = {(answer.status, answer.value("x-ratelimit-limit")) for answer in answers}
        return told == {(200, str(90_000 + number))}

    assert eventually(holds, every=0), "the change did not come into force"


def most_within(moments: Sequence[float], seconds: float) -> int:
    """The most moments that any span of this length holds."""
    first = most = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
