"""Filters that most requests do without: Envoy makes one only for a request of which a header says so.

A filter that looks at a request and lets it pass is not free: ext_authz and ratelimit make a gRPC client each for every
request. The composite filter makes its filter when the matcher around it says so, for a third of that.

Both go by the outer filter's name: settings of a route, and dynamic metadata, are the same as without the condition.
"""

from __future__ import annotations

from google.protobuf.message import Message

from controlplane import protos

HttpFilter = protos.hcm.HttpFilter
Matcher = protos.xds_matcher.Matcher
Predicate = Matcher.MatcherList.Predicate


def unless(header: str, value: str, name: str, message: Message) -> protos.hcm.HttpFilter:
    """The filter, for every request but those whose header has this value. What fails to say so meets it."""
    skip = _action("skip", protos.skip_action.SkipFilter())
    matcher = Matcher(
        matcher_list=_where(header, value, skip), on_no_match=Matcher.OnMatch(action=_made(name, message))
    )
    return _matched(name, matcher)


def only_where(header: str, value: str, name: str, message: Message) -> protos.hcm.HttpFilter:
    """The filter, for no request but those whose header has this value."""
    return _matched(name, Matcher(matcher_list=_where(header, value, _made(name, message))))


def _where(header: str, value: str, action: protos.xds_extension.TypedExtensionConfig) -> Matcher.MatcherList:
    seen = protos.http_inputs.HttpRequestHeaderMatchInput(header_name=header)
    predicate = Predicate(
        single_predicate=Predicate.SinglePredicate(
            input=_action(header, seen), value_match=protos.xds_string_matcher.StringMatcher(exact=value)
        )
    )
    found = Matcher.MatcherList.FieldMatcher(predicate=predicate, on_match=Matcher.OnMatch(action=action))
    return Matcher.MatcherList(matchers=[found])


def _made(name: str, message: Message) -> protos.xds_extension.TypedExtensionConfig:
    made = protos.extension.TypedExtensionConfig(name=name, typed_config=protos.any_of(message))
    return _action("make", protos.composite_filter.ExecuteFilterAction(typed_config=made))


def _action(name: str, message: Message) -> protos.xds_extension.TypedExtensionConfig:
    return protos.xds_extension.TypedExtensionConfig(name=name, typed_config=protos.any_of(message))


def _matched(name: str, matcher: protos.xds_matcher.Matcher) -> protos.hcm.HttpFilter:
    composite = protos.extension.TypedExtensionConfig(
        name="composite", typed_config=protos.any_of(protos.composite_filter.Composite())
    )
    conditional = protos.extension_matcher.ExtensionWithMatcher(xds_matcher=matcher, extension_config=composite)
    return HttpFilter(name=name, typed_config=protos.any_of(conditional))
