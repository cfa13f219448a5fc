"""Changes of headers, as Envoy's filters (HeaderMutation) and routes (HeaderValueOption) take them."""

from __future__ import annotations

from controlplane import protos

HeaderMutation = protos.mutation_rules.HeaderMutation
HeaderValueOption = protos.base.HeaderValueOption
Action = HeaderValueOption.HeaderAppendAction


def option(
    name: str,
    value: str,
    action: protos.base.HeaderValueOption.HeaderAppendAction.ValueType = Action.OVERWRITE_IF_EXISTS_OR_ADD,
) -> protos.base.HeaderValueOption:
    """A header with a value, which may be a format. One that comes to nothing changes nothing."""
    return HeaderValueOption(header=protos.base.HeaderValue(key=name, value=value), append_action=action)


def write(
    name: str,
    value: str,
    action: protos.base.HeaderValueOption.HeaderAppendAction.ValueType = Action.OVERWRITE_IF_EXISTS_OR_ADD,
) -> protos.mutation_rules.HeaderMutation:
    """The same for a filter."""
    return HeaderMutation(append=option(name, value, action))


def remove(name: str) -> protos.mutation_rules.HeaderMutation:
    """The header goes."""
    return HeaderMutation(remove=name)
