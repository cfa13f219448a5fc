"""Filters that most requests do without: Envoy makes one only if a request header asks for it.

A filter that looks at a request and lets it pass is not free: ext_authz and ratelimit each make a gRPC client for every
request. The composite filter makes its filter only if the matcher around it asks for it, for a third of that cost.

Settings of a route and dynamic metadata belong to the name of the composite filter. So it has its filter's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from controlplane import protos

Matcher = protos.xds_matcher.Matcher
Predicate = Matcher.MatcherList.Predicate
StringMatcher = protos.xds_string_matcher.StringMatcher
Action = protos.xds_extension.TypedExtensionConfig
ExecuteFilterAction = protos.composite_filter.ExecuteFilterAction


def unless(header: str, value: str, name: str, message: Message) -> Message:
    """The filter, for every request but those whose header has this value; so also if the header is missing."""
    return switch(header, {value: skip()}, made(name, message))


def switch(header: str, cases: Mapping[str, Action], otherwise: Action) -> Message:
    """The action for the header's value."""
    matchers = [
        Matcher.MatcherList.FieldMatcher(
            predicate=header_is(header, StringMatcher(exact=value)), on_match=Matcher.OnMatch(action=action)
        )
        for value, action in cases.items()
    ]
    matcher = Matcher(
        matcher_list=Matcher.MatcherList(matchers=matchers), on_no_match=Matcher.OnMatch(action=otherwise)
    )
    composite = protos.named("composite", protos.composite_filter.Composite())
    return protos.extension_matcher.ExtensionWithMatcher(xds_matcher=matcher, extension_config=composite)


def skip() -> protos.xds_extension.TypedExtensionConfig:
    """No filter."""
    return protos.xds_named("skip", protos.skip_action.SkipFilter())


def made(name: str, message: Message) -> protos.xds_extension.TypedExtensionConfig:
    """One filter."""
    return protos.xds_named("make", ExecuteFilterAction(typed_config=protos.named(name, message)))


def made_in_turn(filters: Sequence[tuple[str, Message]]) -> protos.xds_extension.TypedExtensionConfig:
    """Several filters, as a chain."""
    chain = protos.composite_filter.FilterChainConfiguration(
        typed_config=[protos.named(name, message) for name, message in filters]
    )
    return protos.xds_named("make", ExecuteFilterAction(filter_chain=chain))


def header_is(
    header: str, match: protos.xds_string_matcher.StringMatcher
) -> protos.xds_matcher.Matcher.MatcherList.Predicate:
    """Whether the request has the header, with such a value."""
    seen = protos.xds_named(header, protos.http_inputs.HttpRequestHeaderMatchInput(header_name=header))
    return Predicate(single_predicate=Predicate.SinglePredicate(input=seen, value_match=match))
