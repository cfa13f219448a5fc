"""What Envoy asks about: the entries of a rate-limit descriptor, read once, and the caller's key."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from ratelimit_service.leases import Report, read_report
from service_kit.networks import Prefixes, network_of

DOMAIN = "mgw"
ANONYMOUS = "anonymous"
NOBODY = "-"
"""What the entry `caller` says for an anonymous caller."""
POST_CHARGE = ("charge", "late")
"""The entry of a descriptor whose hits are known only after the response."""

BY_DEFAULT = Prefixes()


class Descriptor(NamedTuple):
    """May this caller spend these hits on this route? One descriptor of a request, read."""

    route: str
    tier: str
    caller: str
    remote_address: str
    hits: int
    is_post_charge: bool = False
    """The response is sent: nothing is asked, the hits are told."""
    report: Report | None = None
    """Which Envoy worker asks, if it can spend a lease."""
    lease: str = ""
    """EPOCH/ROUTE: under which numbers a lease would be spent, and on which route alone, if so."""


def read_descriptor(entries: Iterable[tuple[str, str]], hits: int) -> Descriptor | None:
    """A descriptor from its entries; None if it is not of our shape."""
    found = dict(entries)
    is_post_charge = found.get(POST_CHARGE[0]) == POST_CHARGE[1]
    try:
        descriptor = Descriptor(
            found["route"],
            found["tier"],
            found["caller"],
            found.get("remote_address", ""),
            hits,
            is_post_charge,
            read_report(found["lease"]) if "lease" in found else None,
            found.get("asked", ""),
        )
    except KeyError:
        return None
    return descriptor if descriptor.caller and (descriptor.caller != NOBODY or descriptor.remote_address) else None


def caller_tag(descriptor: Descriptor, anonymous_key: str, prefixes: Prefixes = BY_DEFAULT) -> str:
    """Stands for the caller in the store: 128 bits of a hash, so that a key tells and collides nothing."""
    if descriptor.caller != NOBODY:
        return _tag("caller", descriptor.caller)
    if anonymous_key == "shared":
        return _tag("shared", "")
    return address_tag(descriptor.remote_address, prefixes)


def address_tag(address: str, prefixes: Prefixes = BY_DEFAULT) -> str:
    """Stands for a client's address, whoever calls from there."""
    return _tag("address", network_of(address, prefixes))


def shared_tag(name: str) -> str:
    """Stands, in a caller's place, for all callers together under the rule of this name."""
    return _tag("global", name)


@lru_cache(maxsize=4096)
def _tag(kind: str, identity: str) -> str:
    # Every part is preceded by its length, so no two lists of parts can give the same bytes.
    parts = [part.encode("utf-8", "surrogatepass") for part in (DOMAIN, kind, identity)]
    text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return urlsafe_b64encode(blake2b(text, digest_size=16).digest()).decode().rstrip("=")
