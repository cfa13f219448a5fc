"""X-Forwarded-For from trusted hops, in every form that proxies write it.

Envoy takes plain addresses only: a port or brackets, and the client would be the proxy. So early mutations bring the
header into that form before Envoy looks for the client in it. What cannot be read is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane import protos
from controlplane.config.model import Listener
from controlplane.translate.headers import Header, Key, Namespace

MOST_ODD = 4
"""So many addresses are mended, from the right: where the trusted hops are."""
COUNTER_PREFIX, COUNTER = "gateway", "forwarded_for_unread"
"""Envoy's metric is named by both."""

_TEXT = r"[\t -~]*"
_FOR = f"request.headers['{Header.FORWARDED_FOR}']"

_ENDS = (f"{_FOR}.endsWith(',')", rf"^({_TEXT}?)[ \t,]*$", r"\1")
_GAPS = (f"{_FOR}.contains(',,') || {_FOR}.contains(', ,')", rf"^({_TEXT}),[ \t]*(,{_TEXT})$", r"\1\2")
_IN_BRACKETS = r"\[([0-9a-fA-F:.]+)\](?::[0-9]*)?"
_WITH_PORT = r"((?i:::ffff:)?[0-9]+[.][0-9.]+):[0-9]*"
_ODD = (
    f"{_FOR}.contains('[') || {_FOR}.contains('.') && {_FOR}.contains(':')",
    rf'^((?:{_TEXT},)?[ \t]*)"?(?:{_IN_BRACKETS}|{_WITH_PORT})"?([ \t]*(?:,{_TEXT})?)$',
    r"\1\2\3\4",
)
"""A cheap condition, a pattern and what to write in its place. A pattern costs Envoy some 40 µs, and it takes none that
becomes a large program: hence a condition, and a mutation for each address."""


def are_proxies_trusted(listener: Listener) -> bool:
    """Whether what proxies say of a client is believed at all."""
    return bool(listener.trusted_hops or listener.trusted_cidrs)


def last_hop(listener: Listener) -> str:
    """What is appended: a trusted proxy's own address, or else the client's, which a PROXY header may have named."""
    return f"%DOWNSTREAM_{'DIRECT_' if are_proxies_trusted(listener) else ''}REMOTE_ADDRESS_WITHOUT_PORT%"


def values(listener: Listener) -> Iterator[str]:
    """What the header becomes, one after the other. An empty value leaves it as it is."""
    odd = MOST_ODD if listener.trusted_cidrs else min(listener.trusted_hops, MOST_ODD)
    mends = (_ENDS, *((_GAPS,) if odd > 1 else ()), *(_ODD,) * odd)
    for mend in mends if odd else ():
        yield _rewritten(*mend)


def _rewritten(condition: str, pattern: str, replacement: str) -> str:
    return f"%CEL({condition} ? re.extract({_FOR}, {_quoted(pattern)}, {_quoted(replacement)}) : '')%"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def counter() -> protos.accesslog.AccessLog:
    """Counts the requests that request_filter.lua marked: a trusted hop's X-Forwarded-For that names no client."""
    config = protos.stats_logger.Config
    unread = config.Counter(stat=config.Stat(name=COUNTER), value_fixed=protos.uint64(1))
    marked = protos.metadata_matcher.MetadataMatcher(
        filter=Namespace.GATEWAY,
        path=[protos.metadata_matcher.MetadataMatcher.PathSegment(key=Key.UNREAD)],
        value=protos.value_matcher.ValueMatcher(present_match=True),
    )
    when = protos.accesslog.MetadataFilter(matcher=marked, match_if_key_not_found=protos.boolean(False))
    return protos.accesslog.AccessLog(
        name="envoy.access_loggers.stats",
        filter=protos.accesslog.AccessLogFilter(metadata_filter=when),
        typed_config=protos.any_of(config(stats_scope=protos.scope.Scope(prefix=COUNTER_PREFIX), counters=[unread])),
    )
