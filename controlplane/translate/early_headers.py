"""Early header mutations: what becomes of a request's headers before anything looks at them, Envoy itself included.

Reserved headers go, whoever sends them. Forwarding headers, by which proxies tell of a client, go unless they come from
a trusted hop: upstreams believe them. Upstreams often read `_` as `-`, so every spelling counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, product, zip_longest
from typing import Any

from controlplane import protos
from controlplane.config.model import GatewayConfig, Listener
from controlplane.translate import forwarded_for
from controlplane.translate.filters import HOP_BY_HOP
from controlplane.translate.headers import RESERVED_PREFIXES, Header, Mark
from controlplane.translate.mutations import Action, HeaderMutation, remove, write

OURS = "x[-_](user[-_](id|tier|issuer)|(envoy|gateway|mgw)[-_][!-~]*)"
"""Request headers whose value is ours, in every spelling."""

X_FORWARDED = "x[-_]forwarded([-_](([!-eg-~]|f[!-np-~]|fo[!-qs-~]|for[!-~])[!-~]*|fo?))?"
"""All but X-Forwarded-For, to which the client's address is appended. RE2 has no lookahead, and Envoy takes no pattern
that becomes a large program, as with dots, which cover all of UTF-8."""

FORWARDING = (
    *("forwarded", "x-real-ip", "x-real-port", "x-rewrite-uri", "x-rewrite-url"),
    *("x-original-for", "x-original-host", "x-original-method", "x-original-proto", "x-original-uri", "x-original-url"),
    *("client-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip", "x-remote-ip"),
    *("x-remote-addr", "cf-connecting-ip", "cf-connecting-ipv6", "x-scheme", "x-url-scheme", "front-end-https"),
)
"""Further headers by which a proxy tells of its client: who it is, and what it asked for. By name: as patterns they
would be several, each tried on every header."""

OURS_WITH_HYPHENS = (
    Header.REQUEST_ID,
    Header.CORRELATION_ID,
    Header.FORWARDED_FOR,
    Header.FORWARDED_PROTO,
    *(name for name in HOP_BY_HOP if "-" in name),
    "content-length",
    "transfer-encoding",
)
"""Headers that mean something to the gateway, so that no other spelling of them passes."""

MAX_PARTS = 5
PSEUDO_FIELDS = 3
"""Method, authority (Host is one) and path are fields for Envoy, and are not counted; nor is HTTP/2's scheme."""


def mutations(config: GatewayConfig) -> list[protos.mutation_rules.HeaderMutation]:
    """The mutations, in order. A client's request id is kept aside, because Envoy makes one for every request; the
    request filter puts the client's back if it is valid."""
    return [
        *_families(config),
        *(remove(name) for name in removed_names(config)),
        *(
            write(Header.FORWARDED_FOR, value, Action.OVERWRITE_IF_EXISTS)
            for value in forwarded_for.values(config.listener)
        ),
        write(Header.UNFIT, _unfit(config.listener)),
        write(Header.CLIENT_REQUEST_ID, "%REQ(X-REQUEST-ID)%"),
        remove(Header.REQUEST_ID),
        *(remove(name) for name in HOP_BY_HOP),
    ]


def _unfit(listener: Listener) -> str:
    """What the request filter is told of all fields together, for a script that counts them takes ten times as long.

    Envoy's codecs let twice as many fields pass, and twice as large ones. HTTP/1.0 has no chunks (RFC 9112, section
    6.1), and Envoy takes Transfer-Encoding away before the filters.
    """
    most, count = listener.max_headers + PSEUDO_FIELDS, "size(request.headers)"
    too_many = f"{count} > {most} && (':scheme' in request.headers ? {count} > {most + 1} : true)"
    too_much = f"({too_many}) || request.total_size > {listener.max_header_kib * 1024}"
    chunks = "request.protocol == 'HTTP/1.0' && 'transfer-encoding' in request.headers"
    return f"%CEL({too_much} ? '{Mark.FIELDS}' : {chunks} ? '{Mark.PATH}' : '')%"


def underscores(listener: Listener) -> protos.protocol.HttpProtocolOptions.HeadersWithUnderscoresAction.ValueType:
    """What becomes of names with `_`. The reserved ones among them go in any case."""
    options = protos.protocol.HttpProtocolOptions
    return options.ALLOW if listener.keep_underscores else options.DROP_HEADER


def _families(config: GatewayConfig) -> Iterator[HeaderMutation]:
    """Removes what is named by a beginning. Envoy tries each on every header of every request, and a prefix costs a
    tenth of a pattern. With `_` in names only a pattern will do."""
    are_trusted = forwarded_for.are_proxies_trusted(config.listener)
    if config.listener.keep_underscores:
        pattern = OURS if are_trusted else f"{OURS}|{X_FORWARDED}"
        yield _remove_matching(safe_regex=protos.regex_matcher.RegexMatcher(regex=pattern))
        return
    for prefix in RESERVED_PREFIXES:
        yield _remove_matching(prefix=prefix)
    yield from (remove(name) for name in (Header.USER_ID, Header.USER_TIER, Header.USER_ISSUER))
    if not are_trusted:
        yield write(Header.FORWARDED_FOR_KEPT, f"%REQ({Header.FORWARDED_FOR})%")
        yield remove("x-forwarded")
        yield _remove_matching(prefix="x-forwarded-")
        yield write(Header.FORWARDED_FOR, f"%REQ({Header.FORWARDED_FOR_KEPT})%")
        yield remove(Header.FORWARDED_FOR_KEPT)


def removed_names(config: GatewayConfig) -> Iterator[str]:
    """Further names that go, one by one."""
    forwarding = () if forwarded_for.are_proxies_trusted(config.listener) else FORWARDING
    yield from forwarding
    if config.listener.keep_underscores:
        for name in (*forwarding, *OURS_WITH_HYPHENS, config.auth.api_key_header):
            yield from _with_underscores(name)


def _with_underscores(name: str) -> Iterator[str]:
    """Every other spelling of a name; of one with many parts only the plainest, for there are too many."""
    parts = name.split("-")
    if len(parts) > MAX_PARTS:
        yield "_".join(parts)
        return
    for separators in product("-_", repeat=len(parts) - 1):
        spelling = "".join(chain.from_iterable(zip_longest(parts, separators, fillvalue="")))
        if spelling != name:
            yield spelling


def _remove_matching(**how: Any) -> HeaderMutation:
    matcher = protos.string_matcher.StringMatcher(**how)
    return HeaderMutation(remove_on_match=HeaderMutation.RemoveOnMatch(key_matcher=matcher))
