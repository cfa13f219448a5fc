"""How many wrong API keys an address may try. An address that has no more tries is heard with known good keys alone."""

from __future__ import annotations

from authz_service.cache import GenerationCache
from service_kit.networks import plain_address

WINDOW_SECONDS = 60.0
GOOD_SECONDS = 600.0
MAX_WRONG = 50_000
"""Wrong keys that are remembered, over all networks."""
MAX_GOOD = 100_000
NETWORK_BYTES = 8
"""Of an IPv6 address: a client has all addresses of a /64."""


class Guesses:
    """Wrong keys of the last minute by network, and when each good key was seen last. Times are in Unix seconds.

    Bounded: the network whose last wrong key is the oldest is forgotten first.
    """

    def __init__(self, max_wrong: int = MAX_WRONG) -> None:
        self._max_wrong, self._count = max_wrong, 0
        self._wrong: dict[str, list[float]] = {}
        self._good: GenerationCache[float] = GenerationCache(max_entries=MAX_GOOD)

    def good(self, digest: bytes, now: float) -> None:
        """A key was right."""
        self._good.put(digest, now, 0)

    def was_good(self, digest: bytes, now: float) -> bool:
        """Whether a key was right a moment ago, so that looking at it again tells nobody anything."""
        seen = self._good.get(digest, 0)
        return seen is not None and now - seen < GOOD_SECONDS

    def wrong(self, network: str, most: int, now: float) -> None:
        """A key was wrong. More than the last `most` of a network need not be known."""
        times = [*self._recent(network, now), now][-most:]
        self._forget(network)
        self._wrong[network] = times  # the dict's last entry is the one that was wrong last
        self._count += len(times)
        self._forget_oldest(now)

    def wait(self, network: str, most: int, now: float) -> float:
        """In how many seconds the network may try again, if it may be wrong `most` times a minute; 0 if it may now."""
        times = self._recent(network, now)
        return times[-most] + WINDOW_SECONDS - now if len(times) >= most else 0.0

    @property
    def count(self) -> int:
        """How many wrong keys are remembered."""
        return self._count

    def _recent(self, network: str, now: float) -> list[float]:
        # A time that is still to come is from before the clock was set back, and says nothing.
        return [time for time in self._wrong.get(network, ()) if 0 <= now - time < WINDOW_SECONDS]

    def _forget_oldest(self, now: float) -> None:
        while self._wrong:
            oldest = next(iter(self._wrong))
            if self._count <= self._max_wrong and self._recent(oldest, now):
                return
            self._forget(oldest)

    def _forget(self, network: str) -> None:
        self._count -= len(self._wrong.pop(network, ()))


def network_of(address: str) -> str:
    """Whose tries are counted together: an IPv4 address, also one written as IPv6, or an IPv6 address's /64."""
    parsed = plain_address(address)
    if parsed is None:
        return address
    return str(parsed) if parsed.version == 4 else parsed.packed[:NETWORK_BYTES].hex()
