"""Many routes as a tree: on real Envoy it leads every request where the list does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane import protos
from controlplane.config.model import GatewayConfig
from controlplane.translate import assemble, route_tree, routes
from tests.support.configs import TOPOLOGY, a_config, a_route, default_config

Match = protos.route_components.RouteMatch
SEGMENTS = ("a", "ab", "a.b", "{id}", "x-1", "{rest=**}")


def regex(text: str) -> protos.route_components.RouteMatch:
    return Match(safe_regex=protos.regex_matcher.RegexMatcher(regex=text))


@pytest.mark.parametrize(
    ("match", "start"),
    [
        (Match(prefix="/"), "/"),
        (Match(path="/a/b"), "/a/b"),
        (regex(r"/a/[^/]+/b"), "/a/"),
        (regex(r"/a\.b\-c/.+"), "/a.b-c/"),
        (regex(r"[^/]+"), ""),
    ],
)
def test_what_a_path_begins_with(match: protos.route_components.RouteMatch, start: str) -> None:
    """Text up to the first parameter, without the backslashes of the regular expression."""
    assert route_tree.start_of(match) == start


def test_a_route_without_a_path_is_our_mistake() -> None:
    """It could stand nowhere in the tree."""
    with pytest.raises(ValueError, match="connect_matcher"):
        route_tree.start_of(Match(connect_matcher=Match.ConnectMatcher()))


def many(templates: list[str]) -> GatewayConfig:
    return a_config(routes=[a_route(f"r{number}", path) for number, path in enumerate(templates)])


def lists(tree: protos.xds_matcher.Matcher) -> dict[str, list[protos.route_components.Route]]:
    """What is looked through, by what the path begins with."""
    found = {}
    for start, entry in tree.matcher_tree.prefix_match_map.map.items():
        held = protos.route_components.RouteList()
        entry.action.typed_config.Unpack(held)
        found[start] = list(held.routes)
    return found


def could_match(route: protos.route_components.Route, path: str) -> bool:
    return path.startswith(route_tree.start_of(route.match))


templates = st.lists(st.sampled_from(SEGMENTS[:-1]), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(templates, min_size=1, max_size=30, unique=True), st.lists(templates, min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_the_tree_holds_whatever_could_match(held: list[str], asked: list[str]) -> None:
    """For any path, the longest beginning leads to all routes that the whole list would try, in its order."""
    (host,) = routes.route_configuration(many(_distinct(held))).virtual_hosts
    found = lists(route_tree.tree(host.routes))

    for path in (template.replace("{id}", "17") for template in [*asked, *held]):
        longest = max((start for start in found if path.startswith(start)), key=len)
        possible = [route.name for route in host.routes if could_match(route, path)]
        assert [route.name for route in found[longest] if could_match(route, path)] == possible


def _distinct(held: list[str]) -> list[str]:
    shapes = {routes._shape(template): template for template in held}
    return list(shapes.values())


def test_a_short_list_stays_one() -> None:
    """The default document's routes are read as they are."""
    (host,) = _routes(default_config()).virtual_hosts

    assert host.routes
    assert not host.HasField("matcher")


def test_a_long_list_is_short_everywhere() -> None:
    """A thousand routes, and no path has more than a few to be tried."""
    config = many([f"/api/v1/things{number}/{{id}}" for number in range(1000)])
    (host,) = _routes(config).virtual_hosts

    assert not host.routes
    assert max(len(held) for held in lists(host.matcher).values()) < 10 + len(_own())


def _own() -> list[str]:
    return [route.name for route in routes.route_configuration(a_config()).virtual_hosts[0].routes]


def _routes(config: GatewayConfig) -> protos.route.RouteConfiguration:
    snapshot = assemble.snapshot(config, TOPOLOGY)
    (held,) = itertools.chain.from_iterable(
        kept.values() for type_url, kept in snapshot.resources.items() if type_url.endswith("RouteConfiguration")
    )
    packed, result = protos.Any.FromString(held), protos.route.RouteConfiguration()
    packed.Unpack(result)
    return result
