"""What the early header mutations do to a request's headers, in Python."""

from __future__ import annotations

import re
from collections.abc import Iterable

from controlplane.config.model import GatewayConfig
from controlplane.translate import early_headers


def is_removed(config: GatewayConfig, name: str) -> bool:
    """Whether a client's header is gone before anything looks at the request, by what Envoy is told.

    One that is kept aside under another name is not gone.
    """
    if "_" in name and not config.listener.keep_underscores:
        return True  # Envoy's codec drops it: headers_with_underscores_action
    kept = {name: "theirs"}
    for each in early_headers.mutations(config):
        if each.HasField("append"):
            key, value = each.append.header.key, each.append.header.value
            source = re.fullmatch(r"%REQ\((.*)\)%", value)
            if source and source[1].lower() in kept:
                kept[key] = kept[source[1].lower()]
        for gone in [found for found in kept if each.remove == found or _is_matched(each, found)]:
            del kept[gone]
    return "theirs" not in kept.values()


def are_removed(config: GatewayConfig, names: Iterable[str]) -> bool:
    """All of them."""
    return all(is_removed(config, name) for name in names)


def _is_matched(mutation: object, name: str) -> bool:
    if not mutation.HasField("remove_on_match"):  # type: ignore[attr-defined] # a HeaderMutation
        return False
    matcher = mutation.remove_on_match.key_matcher  # type: ignore[attr-defined]
    if matcher.HasField("safe_regex"):
        return re.fullmatch(matcher.safe_regex.regex, name) is not None
    return bool(name.startswith(matcher.prefix))
