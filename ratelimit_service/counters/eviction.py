"""Whether the store drops counters when its memory is full: then limits are forgotten, and nothing else tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

LOOK_SECONDS = 60.0
"""How often a server is asked. Its policy can be changed while it runs."""

KEEPS = "noeviction"
"""The one policy under which it keeps everything. All our keys expire, so the `volatile-` policies drop them too."""

_FIELD = re.compile(rb"^(maxmemory_policy|evicted_keys):([^\r\n]+)", re.MULTILINE)


class Eviction(NamedTuple):
    """What a server says of itself."""

    policy: str
    evicted_keys: int
    """Since it started."""
    newly_evicted: int = 0
    """Since it was last asked."""

    @property
    def drops_counters(self) -> bool:
        """Whether it did, or would."""
        return self.policy != KEEPS or self.newly_evicted > 0


def read_eviction(info: bytes, before: int | None) -> Eviction | None:
    """From the sections `memory` and `stats` of INFO; None where they do not say. `before`: keys evicted by then."""
    found = dict(_FIELD.findall(info))
    policy, keys = found.get(b"maxmemory_policy"), found.get(b"evicted_keys", b"")
    if policy is None or not keys.isdigit():
        return None
    evicted = int(keys)
    return Eviction(
        policy.decode("ascii", "replace"), evicted, max(0, evicted - (evicted if before is None else before))
    )


def together(servers: Iterable[Eviction | None]) -> Eviction | None:
    """Several servers as one: a policy that drops counters goes before one that keeps them. None where none says."""
    told = [each for each in servers if each is not None]
    if not told:
        return None
    policy = next((each.policy for each in told if each.policy != KEEPS), KEEPS)
    return Eviction(policy, sum(each.evicted_keys for each in told), sum(each.newly_evicted for each in told))
