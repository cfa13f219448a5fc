"""Contract 1 over HTTP/2: one request's fault is its own, and the others on the connection do not notice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateway import Gateway, token
from tests.support.http2_client import Fields, Outcome, http2, request
from tests.support.paths import RAW, REJECTED
from tests.support.waiting import until

PATH = "/api/v1/genres"

MALFORMED = {
    "an upper-case name": request(PATH, ("X-Upper", "1")),
    "te: gzip": request(PATH, ("te", "gzip")),
    "a control character in a value": request(PATH, ("x-a", "a\x01b")),
    "NUL in a value": request(PATH, ("x-a", "a\0b")),
    "a line break in a value": request(PATH, ("x-a", "a\r\nx-b: c")),
    "a space in a name": request(PATH, ("x a", "1")),
    "connection": request(PATH, ("connection", "close")),
    "keep-alive": request(PATH, ("keep-alive", "timeout=5")),
    "proxy-connection": request(PATH, ("proxy-connection", "close")),
    "transfer-encoding": request(PATH, ("transfer-encoding", "chunked")),
    "upgrade": request(PATH, ("upgrade", "h2c")),
    "no path": [(":method", "GET"), (":scheme", "http"), (":authority", "a")],
    "an empty path": request(""),
    "no method": [(":scheme", "http"), (":path", PATH), (":authority", "a")],
    "two paths": [*request(PATH), (":path", "/other")],
    "an unknown pseudo-header": [(":other", "1"), *request(PATH)],
    "a pseudo-header after a field": [("x-a", "1"), *request(PATH)],
    "two lengths that differ": request(PATH, ("content-length", "1"), ("content-length", "2")),
    "a length that is none": request(PATH, ("content-length", "-1")),
    "a body that is shorter than its length": request(PATH, ("content-length", "5")),
    "a fragment": request(f"{PATH}#a"),
    "a host with a user": [(":method", "GET"), (":scheme", "http"), (":path", PATH), (":authority", "u@x")],
}


async def beside_others(gateway: Gateway, bad: Fields) -> tuple[Outcome, list[Outcome]]:
    """A request between good ones on one connection, and what became of it and of them."""
    slow, caller = ("x-demo-delay", "0.2"), ("authorization", f"Bearer {token()}")
    async with http2(gateway.address) as client:
        before = [client.start(request(PATH, slow, caller)) for _ in range(2)]
        wrong = client.start(bad)
        after = [client.start(request(PATH, caller)) for _ in range(2)]
        outcome, *others = await client.finish(wrong, *before, *after)
        return outcome, others


def is_refused(outcome: Outcome) -> bool:
    return 400 <= outcome.status < 500 or outcome.reset is not None


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_ends_alone(plain: Gateway, fields: Fields) -> None:
    """It is reset or 400, and the requests before and after it on the connection are served."""
    outcome, others = await beside_others(plain, fields)

    assert is_refused(outcome), outcome
    assert [other.status for other in others] == [200] * 4


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (request(PATH, *((f"x-{n}", "1") for n in range(90))), 200),
        (request(PATH, *((f"x-{n}", "1") for n in range(103))), 431),
        (request(PATH, *((f"x-{n}", "1") for n in range(190))), 431),
        (request(PATH, *((f"x-{n}", "a" * 1000) for n in range(58))), 200),
        (request(PATH, *((f"x-{n}", "a" * 1000) for n in range(70))), 431),
        (request(PATH, ("x-a", "a" * 60_000)), 200),
        (request(PATH, ("x-a", "a" * 63_000)), 431),
        (request(PATH, *(("cookie", f"c{n}=1") for n in range(150))), 200),
    ],
    ids=["90", "103", "190", "58 kB", "70 kB", "60 kB in one", "63 kB in one", "150 cookie crumbs"],
)
async def test_so_many_fields(plain: Gateway, fields: Fields, status: int) -> None:
    """100 fields and 60 KiB pass; up to twice as much is 431 in the shape of every other error; cookies are one."""
    outcome, others = await beside_others(plain, fields)

    assert outcome.status == status
    assert status == 200 or b'"code":"REQUEST_HEADERS_TOO_LARGE"' in outcome.body
    assert [other.status for other in others] == [200] * 4


@pytest.mark.parametrize(
    "fields",
    [
        request(PATH, *((f"x-{n}", "1") for n in range(300))),
        request(PATH, *((f"x-{n}", "a" * 1000) for n in range(140))),
    ],
    ids=["300", "140 kB"],
)
async def test_far_too_many_fields(plain: Gateway, fields: Fields) -> None:
    """More than twice as many, or twice as much, ends the stream alone."""
    outcome, others = await beside_others(plain, fields)

    assert is_refused(outcome), outcome
    assert [other.status for other in others] == [200] * 4


@pytest.mark.parametrize("path", [*REJECTED, *(raw.decode("latin-1") for raw in RAW)])
async def test_paths_are_judged_as_over_http1(plain: Gateway, path: str) -> None:
    """What hides something is 400, and so are bytes that HTTP/1.1 does not allow in a request line."""
    async with http2(plain.address) as client:
        (outcome,) = await client.finish(client.start(request(path)))

    assert outcome.reset is not None or (outcome.status, b'"code":"BAD_REQUEST"' in outcome.body) == (400, True)


async def test_a_malformed_request_is_logged(plain: Gateway) -> None:
    """It has a line of level WARN that says why, though it has neither status nor headers."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in plain.log_lines() if line["status"] == 0 and line["flags"] == "DPE"]

    before = len(lines())
    async with http2(plain.address) as client:
        await client.finish(client.start(request(PATH, ("te", "gzip"))))

    assert await until(lambda: len(lines()) > before, 15)
    assert {(line["level"], line["error"]) for line in lines()} == {("WARN", "BAD_REQUEST")}
    assert {line["details"].partition(".")[0] for line in lines()} == {"http2"}


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431)])
async def test_the_limit_of_fields_is_exact_on_both_protocols(plain: Gateway, count: int, status: int) -> None:
    """Beside the pseudo-headers, of which Host is one."""
    more = [(f"x-{number}", "1") for number in range(count)]

    over_http1 = plain.ask(PATH, headers=more)
    outcome, _ = await beside_others(plain, request(PATH, *more))

    assert (over_http1.status, outcome.status) == (status, status)
