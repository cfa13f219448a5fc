"""Which hosts a request may name.

Two Host fields arrive joined by a comma. A host with a user, an escape or a space means one thing to the gateway and
may mean another to an upstream. So a host is a name or an address, and perhaps a port; anything else is 400.
"""

from __future__ import annotations

from controlplane import protos

NONE = "no-host.invalid"
"""What Envoy sets for an HTTP/1.0 request that names none, and for everything that calls itself HTTP/0.9.

Health checks of load balancers come so, and are served. Any other path is 400: no service is meant.
"""
PATTERN = r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
"""RFC 3986, section 3.2.2, without its escapes and delimiters, which no host in use has."""


def malformed() -> protos.route_components.HeaderMatcher:
    """Whether the host is none of the above."""
    regex = protos.regex_matcher.RegexMatcher(regex=PATTERN)
    return protos.route_components.HeaderMatcher(
        name=":authority", string_match=protos.string_matcher.StringMatcher(safe_regex=regex), invert_match=True
    )


def absent() -> protos.route_components.HeaderMatcher:
    """Whether the request names no host."""
    return protos.route_components.HeaderMatcher(
        name=":authority", string_match=protos.string_matcher.StringMatcher(exact=NONE)
    )
