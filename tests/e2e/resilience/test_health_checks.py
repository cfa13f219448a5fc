"""Contract 4: health checks of Envoy's own steer where they are told to."""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.resilience.place import CHECK, Place
from tests.support.waiting import eventually


def test_a_service_is_not_asked_unless_it_is_to_steer(place: Place) -> None:
    """A health path alone is the control plane's: Envoy sends nothing of its own accord."""
    place.one.health_checks.clear()
    assert eventually(lambda: len(place.one.health_checks) >= 10)

    asked = {headers["host"] for headers in place.one.health_checks}
    steered = [service for service in place.document["services"] if (service["health_check"] or {}).get("steer")]
    rate = len(steered) / CHECK["interval_seconds"]  # checks a second, of all that have this endpoint
    place.one.health_checks.clear()
    began = time.monotonic()
    assert eventually(lambda: len(place.one.health_checks) >= rate)
    assert len(place.one.health_checks) <= rate * 1.3 * (time.monotonic() - began)
    assert asked == {place.one.url.removeprefix("http://")}


def test_an_ill_endpoint_is_passed_over_and_comes_back(place: Place) -> None:
    """No request goes to an endpoint whose check fails, before any request failed; well again, it has its share."""
    assert set(place.who("steered", 20)) == {"one", "other"}

    with place.one.ill():
        assert eventually(lambda: place.who("steered", 10) == {"other": 10})
        assert place.who("steered", 40) == {"other": 40}

    assert eventually(lambda: set(place.who("steered", 10)) == {"one", "other"})


def test_a_check_may_begin_to_steer_under_load(place: Place) -> None:
    """No request fails while a service is told to be asked, and told no longer."""
    document = copy.deepcopy(place.document)
    (weighted,) = [service for service in document["services"] if service["name"] == "weighted"]
    weighted["health_check"] = CHECK
    found: Counter[str] = Counter()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            found.update(place.who("weighted", 1))

    with ThreadPoolExecutor() as threads:
        asking = threads.submit(ask)
        try:
            changes = [place.gateway.put_config(changed).status_code for changed in (document, place.document)]
            began = sum(found.values())
            assert eventually(lambda: sum(found.values()) > began + 20)
        finally:
            done.set()
        asking.result()

    assert changes == [200, 200]
    assert set(found) == {"one", "other"}


def test_a_status_below_500_is_well(place: Place) -> None:
    """A service without such a path (404) is not ill: the same rule as for /health."""
    with place.one.ill(404):
        place.one.health_checks.clear()
        assert eventually(lambda: len(place.one.health_checks) >= 30)
        assert place.who("steered-one", 10) == {"one": 10}


def test_a_service_without_a_well_endpoint_is_refused(place: Place) -> None:
    """As with an open breaker: 503 at once, nothing reaches it, and it is back within moments of being well."""
    with place.one.ill():
        assert eventually(lambda: place.ask("steered-one").status == 503)
        tried = len(place.one.seen)
        refused = place.ask("steered-one")
        assert len(place.one.seen) == tried

    assert refused.code == "CIRCUIT_BREAKER_OPEN"
    assert refused.value("retry-after") == "2"
    assert eventually(lambda: place.ask("steered-one").status == 200, 2)


@pytest.mark.parametrize(("route", "least", "most"), [("well-but-failing", 1.0, 4.0), ("let-back", 0.0, 3.0)])
def test_a_good_check_does_not_close_a_breaker_unless_it_is_told_to(
    place: Place, route: str, least: float, most: float
) -> None:
    """The health path may be fine while the service fails: its open time (1.5 s, and 60 s) holds, or is cut short."""
    with place.one.failing():
        assert eventually(lambda: place.ask(route).code == "CIRCUIT_BREAKER_OPEN", every=0)
        opened = time.monotonic()

    assert eventually(lambda: place.ask(route).status == 200, most), f"still open after {most} s"
    assert least <= time.monotonic() - opened <= most
