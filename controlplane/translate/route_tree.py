"""Many routes as a tree. Envoy tries the routes of a list one by one, so thousands take milliseconds a request.

Routes are grouped by the text that their paths begin with. Envoy takes the longest such text that a request's path
begins with, and tries only its group. So each group has every route that could match such a path, in the order of the
list.
(xds.type.matcher.v3.Matcher.MatcherTree, `prefix_match_map`; envoy.config.route.v3.RouteList.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from controlplane import protos

Route = protos.route_components.Route
Matcher = protos.xds_matcher.Matcher

MANY = 64
"""Up to so many routes a list is as fast, and easier to read."""
_PLAIN_REGEX = re.compile(r"(?:[^\\.+*?()|\[\]{}^$]|\\[^A-Za-z0-9])*")


def plant(host: protos.route_components.VirtualHost) -> None:
    """Turn the host's list of routes into a tree if it is long."""
    if len(host.routes) <= MANY:
        return
    host.matcher.CopyFrom(tree(host.routes))
    del host.routes[:]


def tree(routes: Sequence[protos.route_components.Route]) -> protos.xds_matcher.Matcher:
    """The matcher. Every group ends with the routes that match any path."""
    starts = [start_of(route.match) for route in routes]
    by_start: dict[str, list[int]] = {}
    for number, start in enumerate(starts):
        by_start.setdefault(start, []).append(number)
    result = Matcher()
    header = protos.http_inputs.HttpRequestHeaderMatchInput(header_name=":path")
    result.matcher_tree.input.CopyFrom(protos.xds_named("path", header))
    for start in sorted(by_start):
        numbers = sorted(number for shorter in beginnings(start, by_start) for number in by_start[shorter])
        entry = result.matcher_tree.prefix_match_map.map[start]
        entry.CopyFrom(_look_through(routes[number] for number in numbers))
    return result


def beginnings(text: str, known: Mapping[str, object]) -> list[str]:
    """Those of the known texts that the text begins with, itself included."""
    return [text[:length] for length in range(len(text) + 1) if text[:length] in known]


def start_of(match: protos.route_components.RouteMatch) -> str:
    """The text that every path that this matches begins with."""
    kind = match.WhichOneof("path_specifier")
    if kind == "prefix":
        return match.prefix
    if kind == "path":
        return match.path
    if kind != "safe_regex":
        raise ValueError(f"no path in a route that matches by {kind}")
    found = _PLAIN_REGEX.match(match.safe_regex.regex)
    return re.sub(r"\\(.)", r"\1", found[0]) if found else ""


def _look_through(
    routes: Iterable[protos.route_components.Route],
) -> protos.xds_matcher.Matcher.OnMatch:
    action = protos.any_of(protos.route_components.RouteList(routes=routes))
    return Matcher.OnMatch(action=protos.xds_extension.TypedExtensionConfig(name="routes", typed_config=action))
