"""Contract 4: what is sent again, how often, and what never is."""

from __future__ import annotations

import pytest

from tests.e2e.resilience.place import Place
from tests.support.gateway import bearer, token, unique


def test_nothing_is_repeated_unless_asked_for(place: Place) -> None:
    """By default, and on a route that says 0, a failure is passed on after one try."""
    for route in ("plain", "again-never"):
        key = unique()
        assert place.ask(route, f"key={key}&acts=503,200").status == 503
        assert len(place.one.tries(key)) == 1


def test_a_client_cannot_ask_for_it(place: Place) -> None:
    """Envoy's own request headers mean nothing from outside."""
    asked = [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3"), ("x-envoy-hedge-on-per-try-timeout", "true")]
    for route, method in (("plain", "GET"), ("again", "POST")):
        key = unique()
        place.gateway.ask(f"/t/{route}?key={key}&acts=503", method, [*asked, bearer(token(tier="enterprise"))])
        assert len(place.one.tries(key)) == 1


@pytest.mark.parametrize("act", ["503", "502", "close"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_idempotent_requests_are_sent_again_whole(place: Place, method: str, act: str) -> None:
    """A failed try is followed by another with the same body, and the client sees only the good answer."""
    key = unique()
    body = b"x" * 100_000 if method == "PUT" else None

    answer = place.gateway.ask(f"/t/again?key={key}&acts={act},200", method, [bearer(token(tier="enterprise"))], body)

    assert answer.status == 200
    assert [(seen.method, seen.body) for seen in place.one.tries(key)] == [(method, body or b"")] * 2


def test_a_large_body_is_sent_again_too(place: Place) -> None:
    """As large as the route takes: nothing of it is lost, the first time or the second."""
    key = unique()
    body = bytes(range(256)) * (8 << 10)

    assert place.ask("again-large", f"key={key}&acts=503,200", "PUT", body).status == 200
    assert [seen.body == body for seen in place.one.tries(key)] == [True, True]


@pytest.mark.parametrize(("act", "status"), [("503", 503), ("close", 502), ("hang", 504)])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_others_never_are(place: Place, method: str, act: str, status: int) -> None:
    """RFC 9110, section 9.2.2: a POST that failed may have been done."""
    key = unique()

    assert place.ask("again", f"key={key}&acts={act},200", method, b"pay").status == status
    assert len(place.one.tries(key)) == 1


@pytest.mark.parametrize(
    ("route", "acts", "status", "tries"),
    [
        ("again", "503", 503, 3),
        ("again", "500,200", 500, 1),
        ("again", "404,200", 404, 1),
        ("again", "hang,200", 200, 2),
        ("again", "part,200", 200, 1),
        ("plain-again", "500,200", 200, 2),
        ("plain-again", "500,500,200", 500, 2),
        ("half-dead", "503,200", 503, 1),
    ],
)
def test_what_is_repeated_how_often(place: Place, route: str, acts: str, status: int, tries: int) -> None:
    """So many attempts and no more, on the reasons given, each within its own time; never once an answer has begun."""
    key = unique()

    if acts.startswith("part"):
        with pytest.raises(AssertionError, match="middle of a body"):
            place.ask(route, f"key={key}&acts={acts}")
    else:
        assert place.ask(route, f"key={key}&acts={acts}").status == status
    assert len(place.one.tries(key)) == tries


def test_another_endpoint_is_tried(place: Place) -> None:
    """A repetition goes where the request was not yet; an endpoint that nobody listens at costs no client anything."""
    tried = len(place.one.seen)
    with place.one.failing():
        assert place.who("elsewhere", 30) == {"other": 30}
    assert len(place.one.seen) > tried
    assert place.who("half-dead", 30) == {"one": 30}


@pytest.mark.parametrize(("act", "code"), [("503", None), ("close", "PROXY_ERROR")])
def test_repetitions_have_a_budget(place: Place, act: str, code: str | None) -> None:
    """When everything fails, at most a fifth of it (and three) is sent again, and the failure stays what it is."""
    key = unique()

    answers = place.at_once("elsewhere", [f"key={key}&acts={act}&delay=0.5"] * 60)

    assert {answer.code for answer in answers} == {code}
    assert 60 < len(place.one.tries(key)) + len(place.other.tries(key)) <= 60 + 12 + 3
