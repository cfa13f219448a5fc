"""The operations over gRPC, as the control plane calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from structlog.testing import capture_logs

from controlplane import limits_client
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.descriptors import Descriptor
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.limiter import Limiter
from ratelimit_service.metrics import Metrics
from ratelimit_service.operations import Operations
from ratelimit_service.operator_server import METHODS, SERVICE, OperatorServer
from ratelimit_service.policy import Plan, read_policy

PLAN = read_policy({"tiers": {tier: {"rps": 10, "rpm": 100, "burst": 100} for tier in ("anonymous", "free")}})
WHO = {"caller": "p/u1", "tier": "free"}


class Desk:
    """A server with counters, a policy that may be missing, and a client."""

    def __init__(self) -> None:
        self.plan: Plan | None = PLAN
        self.metrics = Metrics()
        self.counters = MemoryCounters()
        self.server = OperatorServer(self, self.metrics, Operations(self.counters))
        self.channel: Any = None

    async def call(self, method: str, values: dict[str, Any]) -> dict[str, Any]:
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=Struct.SerializeToString,
            response_deserializer=Struct.FromString,
        )
        return MessageToDict(await call(ParseDict(values, Struct()), timeout=10))

    async def spend(self, times: int, recorder: Any) -> None:
        limiter = Limiter(self.counters, None, recorder)
        for _ in range(times):
            await limiter.check([Descriptor("content", "free", "p/u1", "10.0.0.1", 1)], PLAN)

    def counted(self, verb: str, outcome: str) -> float:
        labels = {"verb": verb, "outcome": outcome}
        return self.metrics.registry.get_sample_value("mgw_ratelimit_operations_total", labels) or 0.0


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((desk.server.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as desk.channel:
        yield desk
    await server.stop(0)


def used(told: dict[str, Any]) -> float:
    return float(next(rule for rule in told["rules"] if rule["rule"] == "tier")["used"])


async def test_each_verb_does_what_it_says(desk: Desk, recorder: Any) -> None:
    """Look, give back, other numbers, reset: on the counters that decide."""
    await desk.spend(5, recorder)

    assert used(await desk.call("Peek", WHO)) == 5
    await desk.call("Grant", WHO | {"requests": 2})
    assert used(await desk.call("Peek", WHO)) == 3
    await desk.call("Override", WHO | {"rps": 1, "rpm": 7, "burst": 7, "expires_in_seconds": 60})
    told = await desk.call("Peek", WHO)
    assert next(rule for rule in told["rules"] if rule["rule"] == "tier")["limit"] == 7
    await desk.call("Reset", WHO)
    assert used(await desk.call("Peek", WHO)) == 0

    assert {verb: desk.counted(verb, "done") for verb in METHODS.values()} == {
        "peek": 4,
        "grant": 1,
        "override": 1,
        "reset": 1,
    }


async def test_what_changes_something_is_logged_with_its_reason(desk: Desk) -> None:
    """Who, whom and why; a look changes nothing, and is not news."""
    with capture_logs() as logs:
        await desk.call("Peek", WHO)
        await desk.call("Reset", WHO | {"reason": "to begin again", "by": "admin"})

    assert logs == [{"event": "limits.reset", "log_level": "info", "reason": "to begin again", "by": "admin", **WHO}]


@pytest.mark.parametrize(
    ("method", "values", "says"),
    [
        ("Peek", {}, "name a caller or an address"),
        ("Peek", WHO | {"requests": 1}, "requests"),
        ("Grant", WHO, "requests"),
        ("Grant", WHO | {"requests": -1}, "requests"),
        ("Override", WHO | {"rps": 1, "rpm": 1, "burst": 1}, "expires"),
        ("Reset", WHO | {"reason": "x" * 1025}, "reason"),
        ("Reset", WHO | {"event": "forged"}, "event"),
        ("Reset", {"caller": 5}, "caller"),
    ],
)
async def test_what_does_not_fit_is_told(desk: Desk, method: str, values: dict[str, Any], says: str) -> None:
    """INVALID_ARGUMENT, with what is wrong; it is counted, and nothing is changed or logged."""
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.call(method, values)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in str(caught.value.details())
    assert desk.counted(METHODS[method], "refused") == 1
    assert logs == []


@pytest.mark.parametrize("missing", ["policy", "store", "answer"])
async def test_until_there_is_all_that_it_needs(desk: Desk, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """UNAVAILABLE: another replica may be asked, or the same one a little later."""

    async def fails(*_: Any) -> Any:
        raise CountersUnavailable("no answer within 50 ms")

    if missing == "policy":
        desk.plan = None
    elif missing == "store":
        desk.server.operations = None
    else:
        monkeypatch.setattr(Operations, "do", fails)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.call("Peek", WHO)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert str(caught.value.details()).startswith("the store does not answer: ")
    assert desk.counted("peek", "unavailable") == 1


async def test_there_are_no_other_methods(desk: Desk) -> None:
    """And the service has the name that the control plane calls."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.call("Delete", WHO)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert limits_client.SERVICE == SERVICE
