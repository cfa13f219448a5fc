"""Contract 4: one endpoint of several, and a new one."""

from __future__ import annotations

import copy
import time

from tests.e2e.resilience.place import SLOW_START_SECONDS, Place
from tests.support.upstream import Upstream
from tests.support.waiting import eventually


def test_weights_are_respected(place: Place) -> None:
    """Of two endpoints, the one with three times the weight gets about three quarters."""
    found = place.who("weighted", 200)

    assert set(found) == {"one", "other"}
    assert 0.65 <= found["one"] / 200 <= 0.85


def test_one_sick_endpoint_is_left_alone_and_the_service_goes_on(place: Place) -> None:
    """An endpoint that fails is ejected by itself; the breaker of the service stays closed."""
    with place.one.failing():
        assert eventually(lambda: place.who("pair", 10) == {"other": 10})
        tried = len(place.one.seen)
        found = place.who("pair", 40)

    assert found == {"other": 40}
    assert len(place.one.seen) == tried
    assert place.gateway.ask("/health").json()["checks"]["pair"]["circuit_breaker"] == "closed"


def test_a_further_endpoint_starts_slowly_and_disturbs_nobody(place: Place) -> None:
    """It gets its share by and by; who was ejected stays so, because the others are the same as before."""
    document = copy.deepcopy(place.document)
    (growing,) = [service for service in document["services"] if service["name"] == "growing"]
    assert eventually(lambda: time.monotonic() >= place.began + SLOW_START_SECONDS, SLOW_START_SECONDS + 1), "still new"
    with Upstream("third") as third:
        growing["endpoints"] = [*growing["endpoints"], {"url": third.url}]
        with place.one.failing():
            assert eventually(lambda: place.who("growing", 10) == {"other": 10} and place.ejected("growing") == 1)
        assert place.gateway.put_config(document).status_code == 200
        assert eventually(lambda: third.seen or not place.who("growing", 1))
        early = place.who("growing", 50)
        late = eventually(lambda: (found := place.who("growing", 50))["third"] >= 20 and found, SLOW_START_SECONDS + 3)
        assert place.gateway.put_config(place.document).status_code == 200

    assert set(early) == {"other", "third"}
    assert early["third"] < 20
    assert late
    assert set(late) == {"other", "third"}
