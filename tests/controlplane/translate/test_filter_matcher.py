"""Filters that Envoy makes only where a header asks for it."""

from __future__ import annotations

from typing import Any

from controlplane import protos
from controlplane.translate import filter_matcher

CORS, BUFFER = protos.cors_filter.Cors(), protos.buffer_filter.Buffer(max_request_bytes=protos.uint32(7))


def made(action: dict[str, Any]) -> Any:
    """What an action makes: None, a filter's name, or the names of a chain."""
    config = action["typed_config"]
    if config["@type"].endswith(".SkipFilter"):
        return None
    if "filter_chain" in config:
        return [each["name"] for each in config["filter_chain"]["typed_config"]]
    return config["typed_config"]["name"]


def made_for(message: Any, header: str | None) -> Any:
    """What Envoy makes for a request with this value of the header (xds.type.matcher.v3.Matcher.MatcherList)."""
    found: dict[str, Any] = protos.message_to_dict(message)
    matcher = found["xds_matcher"]
    for each in matcher["matcher_list"]["matchers"]:
        if header is not None and each["predicate"]["single_predicate"]["value_match"]["exact"] == header:
            return made(each["on_match"]["action"])
    return made(matcher["on_no_match"]["action"])


def test_a_filter_unless_a_header_says_so() -> None:
    """Only the very value skips it: a request of which nothing is said meets the filter."""
    found = filter_matcher.unless("x-a", "known", "cors", CORS)

    assert [made_for(found, value) for value in ("known", "unknown", "", None)] == [None, "cors", "cors", "cors"]


def test_one_of_several() -> None:
    """Each value has its filter or chain, in the order given; all other requests have another."""
    cases = {
        "a": filter_matcher.skip(),
        "b": filter_matcher.made_in_turn([("cors", CORS), ("buffer", BUFFER)]),
    }
    found = filter_matcher.switch("x-a", cases, filter_matcher.made("buffer", BUFFER))

    assert [made_for(found, value) for value in ("a", "b", None)] == [None, ["cors", "buffer"], "buffer"]


def test_which_header_is_read() -> None:
    """The one that is named, by the composite filter's matcher."""
    message: dict[str, Any] = protos.message_to_dict(filter_matcher.unless("x-a", "known", "cors", CORS))
    (matcher,) = message["xds_matcher"]["matcher_list"]["matchers"]

    assert matcher["predicate"]["single_predicate"]["input"]["typed_config"]["header_name"] == "x-a"
    assert message["extension_config"]["typed_config"]["@type"].endswith(".Composite")
