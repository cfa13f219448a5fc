"""What a demo upstream decides to do with a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from controlplane.local.demo.echo import ANSWER, CLOSE, HANG, RESET, Echo, Plan
from controlplane.local.demo.wire import Request


def a_request(
    method: str = "GET", target: str = "/x", body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Request:
    request = Request(method, target, "HTTP/1.1", list((headers or {}).items()))
    request.body = body
    return request


def body_of(plan: Plan) -> Any:
    return json.loads(plan.answer.body)


def test_it_echoes_what_it_received() -> None:
    """The answer repeats the request, and says which service answered and how often it was asked."""
    plan = Echo("sona").plan(a_request("POST", "/p%2Fq?a=1&a", b"hey", {"X-One": "1"}))

    assert (plan.act, plan.delay_seconds, plan.answer.status) == (ANSWER, 0, 200)
    assert ("x-demo-service", "sona") in plan.answer.headers
    assert body_of(plan) == {
        "service": "sona",
        "method": "POST",
        "path": "/p%2Fq",
        "query": "a=1&a",
        "target": "/p%2Fq?a=1&a",
        "headers": [["X-One", "1"]],
        "body": "hey",
        "body_base64": "aGV5",
        "hits": 1,
    }


def test_an_absent_query_differs_from_an_empty_one() -> None:
    """`/x` has no query, `/x?` an empty one."""
    echo = Echo("sona")

    assert [body_of(echo.plan(a_request(target=target)))["query"] for target in ("/x", "/x?")] == [None, ""]


def test_a_body_that_is_not_text_is_only_given_as_base64() -> None:
    """Bytes that are not UTF-8 have no text."""
    body = body_of(Echo("sona").plan(a_request("POST", body=b"\xff")))

    assert (body["body"], body["body_base64"]) == (None, "/w==")


@pytest.mark.parametrize(
    ("headers", "act", "status", "delay"),
    [
        ({"x-demo-status": "503"}, ANSWER, 503, 0),
        ({"X-Demo-Delay": "0.2"}, ANSWER, 200, 0.2),
        ({"x-demo-hang": "1"}, HANG, 200, 0),
        ({"x-demo-close": "1"}, CLOSE, 200, 0),
        ({"x-demo-reset": "1"}, RESET, 200, 0),
        ({"x-demo-close": "0"}, ANSWER, 200, 0),
        ({"x-demo-status": "999"}, ANSWER, 400, 0),
        ({"x-demo-set-header": "no colon"}, ANSWER, 400, 0),
    ],
)
def test_a_request_can_ask_for_trouble(headers: dict[str, str], act: str, status: int, delay: float) -> None:
    """Headers tell what becomes of the one request that has them."""
    plan = Echo("sona").plan(a_request(headers=headers))

    assert (plan.act, plan.answer.status, plan.delay_seconds) == (act, status, delay)


def test_headers_that_were_asked_for_come_in_order() -> None:
    """Each asked header is one line of the answer, and replaces one of ours of the same name."""
    request = Request(
        "GET",
        "/",
        "HTTP/1.1",
        [("x-demo-set-header", text) for text in ("Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Type: text/x")],
    )

    headers = Echo("sona").plan(request).answer.headers

    assert headers[1:] == [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Type", "text/x")]


def told(echo: Echo, mode: dict[str, Any]) -> Plan:
    return echo.plan(a_request("PUT", "/_demo/mode", json.dumps(mode).encode()))


def test_a_mode_lasts_until_it_is_deleted() -> None:
    """A mode holds for every request under its prefix; a request's own header overrules it."""
    echo = Echo("sona")

    told(echo, {"status": 500, "delay": 0.1, "path_prefix": "/a"})
    during = [echo.plan(a_request(target=target)).answer.status for target in ("/a/1", "/b")]
    overruled = echo.plan(a_request(target="/a", headers={"x-demo-status": "418"})).answer.status
    echo.plan(a_request("DELETE", "/_demo/mode"))

    assert (during, overruled) == ([500, 200], 418)
    assert echo.plan(a_request(target="/a/1")).answer.status == 200


def test_health_stays_well_unless_the_mode_says_so() -> None:
    """A failing mode spares /health, so that a breaker can be tried without the health check; `health` includes it."""
    echo = Echo("sona")

    told(echo, {"status": 500})
    spared = echo.plan(a_request(target="/health")).answer.status
    told(echo, {"status": 500, "health": True})

    assert (spared, echo.plan(a_request(target="/health")).answer.status) == (200, 500)


@pytest.mark.parametrize("mode", [{"staus": 500}, {"status": 99}, {"delay": -1}, {"delay": "soon"}, []])
def test_a_mode_that_makes_no_sense_is_refused(mode: Any) -> None:
    """A misspelt or impossible mode is a 400, and the mode stays as it was."""
    echo = Echo("sona")

    assert told(echo, mode).answer.status == 400
    assert echo.plan(a_request()).answer.status == 200


def test_hits_and_requests_are_told_and_forgotten() -> None:
    """Real requests are counted and kept; health and the control paths are not."""
    echo = Echo("sona")
    for target in ("/1", "/health", "/2?x"):
        echo.plan(a_request(target=target, headers={"X": "y"}))

    hits = body_of(echo.plan(a_request(target="/_demo/hits")))
    seen = body_of(echo.plan(a_request(target="/_demo/requests")))["requests"]
    echo.plan(a_request("POST", "/_demo/reset"))

    assert hits == {"hits": 2}
    assert [(entry["method"], entry["target"], entry["headers"]) for entry in seen] == [
        ("GET", "/1", [["X", "y"]]),
        ("GET", "/2?x", [["X", "y"]]),
    ]
    assert body_of(echo.plan(a_request(target="/_demo/hits"))) == {"hits": 0}
    assert echo.plan(a_request(target="/_demo/nothing")).answer.status == 404
