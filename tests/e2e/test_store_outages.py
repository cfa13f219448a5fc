"""Redis dies and comes back empty, with two replicas: together they give a caller no second quota."""

from __future__ import annotations

from typing import Any

from tests.support.gateway import Gateway, default_document, token, unique
from tests.support.waiting import eventually

PATH = "/api/v1/content/1"
RPM = 100


def test_an_outage_gives_no_second_quota(start: Any) -> None:
    """All is spent, and a replica restarts; then Redis is away, then back with nothing: at most one more passes."""
    document = default_document()
    document["limits"]["tiers"]["steady"] = {"rps": 1000, "rpm": RPM, "burst": 1000}
    gateway: Gateway = start("--ratelimit", "2", document=document)
    credential = token(unique(), "steady")

    def passed(requests: int) -> int:
        statuses = [gateway.ask(PATH, bearer_token=credential).status for _ in range(requests)]
        assert set(statuses) <= {200, 429}
        return statuses.count(200)

    assert passed(RPM + 1) == RPM
    gateway.kill("ratelimit", 1)
    gateway.revive("ratelimit")
    assert eventually(lambda: both(gateway, "mgw_ratelimit_local_identities 1.0"))
    gateway.kill("redis")
    extra = passed(40)
    gateway.revive("redis")
    assert eventually(lambda: both(gateway, "mgw_ratelimit_store_up 1.0"))
    extra += passed(40)

    assert extra <= 1


def both(gateway: Gateway, line: str) -> bool:
    return all(line in gateway.metrics("ratelimit", index).splitlines() for index in range(2))
