"""Contract 3: what a tier table can say beside three whole numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import Gateway, a_route, bearer, default_document, token, unique

PLAIN = "/t/plain"


def the_document() -> dict[str, Any]:
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["limits"]["tiers"] |= {"slow": {"rps": 0.2, "rpm": 100, "burst": 2}}
    document["routes"] += [a_route("plain", "discovery")]
    return document


@pytest.fixture(scope="module")
def tiered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two replicas of the rate-limit service."""
    with Gateway(tmp_path_factory.mktemp("tiers") / "run", "--ratelimit", "2", document=the_document()) as running:
        yield running


def of_tier(tier: str) -> tuple[str, str]:
    """A caller of this tier whom no other test knows."""
    return bearer(token(unique(), tier))


def statuses(gateway: Gateway, asked: int, *headers: tuple[str, str], path: str = PLAIN) -> list[int]:
    return [gateway.ask(path, headers=list(headers)).status for _ in range(asked)]


def test_a_fifth_of_a_request_a_second(tiered: Gateway) -> None:
    """The burst passes, then one request every five seconds; the refusal says how long."""
    caller, began = of_tier("slow"), time.monotonic()
    assert statuses(tiered, 2, caller) == [200, 200]

    refused = tiered.ask(PLAIN, headers=[caller])

    assert time.monotonic() - began > 5 or refused.status == 429
    assert 3 <= int(refused.value("retry-after") or 0) <= 5
    assert '"burst";q=2;w=10' in (refused.value("ratelimit-policy") or "")
