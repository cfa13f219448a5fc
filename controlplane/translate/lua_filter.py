"""The scripts as Envoy gets them: each with the modules of `lua/` that it needs, linked into one text.

A file in `lua/` is a module: a Lua chunk that takes what it needs as arguments (`local names, caller = ...`, its first
line of code) and returns a table of what it gives. Two arguments are no modules: `names` are the names of
`translate/headers.py`, `config` what the script is told of the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from functools import cache
from importlib import resources

from controlplane.config.model import GatewayConfig
from controlplane.translate import decision_cache, forwarded_for, headers, jwt_authn, leases, masking, rate_limit_quota
from controlplane.translate.jwt_authn import EnvoyKeys
from controlplane.translate.lua_literal import Literal, literal

NEEDS = re.compile(r"^local (\w+(?:,\s+\w+)*) = \.\.\.$", re.MULTILINE)

STRICT = """\
local function strict(values)
  return setmetatable(values, {__index = function(_, name) error("no value is named " .. tostring(name)) end})
end
"""
"""A misspelt name stops the script when it is loaded. Nothing is looked up in these tables after that."""


def request_filter(config: GatewayConfig) -> str:
    """What every request passes first. A part that is turned off is left out, and `request_filter.lua` gets nil."""
    told: dict[str, Literal] = {
        "api_key_header": config.auth.api_key_header,
        "verified_here": jwt_authn.is_used(config),
        "in_quotas": rate_limit_quota.is_used(config),
        "ipv4_prefix": config.limits.ipv4_prefix,
        "ipv6_prefix": config.limits.ipv6_prefix,
        **masking.constants(config),
    }
    left_out = set()
    if config.auth.decision_cache.enabled:
        told |= decision_cache.constants(config)
    else:
        left_out.add("decision_cache")
    if not forwarded_for.are_proxies_trusted(config.listener):
        left_out.add("forwarded")
    if not leases.are_used(config):
        left_out.add("leases")
    return linked("request_filter", told, left_out)


def verifier(config: GatewayConfig, keys: EnvoyKeys) -> str:
    """What a request passes behind jwt_authn, if the request filter did not know its caller."""
    told: dict[str, Literal] = {"in_quotas": rate_limit_quota.is_used(config)}
    return linked("verify", told | jwt_authn.constants(config, keys))


def linked(root: str, config: Mapping[str, Literal], left_out: Set[str] = frozenset()) -> str:
    """The module `root` and all that it needs, as one script with root's functions as Envoy's global ones."""
    parts = [STRICT, _names(), f"local config = strict({literal(config)})\n"]
    order = list(dict.fromkeys(_in_order(root, left_out)))
    for name in order:
        arguments = ", ".join("nil" if need in left_out else need for need in needs(name))
        parts.append(f"local {name} = (function(...)\n{source(name)}end)({arguments})\n")
    return "".join([*parts, f"for name, hook in pairs({root}) do _G[name] = hook end\n"])


def _names() -> str:
    groups = "".join(f"  {group} = strict({literal(names)}),\n" for group, names in headers.for_lua().items())
    return f"local names = strict({{\n{groups}}})\n"


def _in_order(name: str, left_out: Set[str]) -> Iterator[str]:
    """The module's needs before itself; some more than once."""
    for need in needs(name):
        if need not in ("names", "config") and need not in left_out:
            yield from _in_order(need, left_out)
    yield name


@cache
def needs(module: str) -> tuple[str, ...]:
    """What a module takes, in order."""
    found = NEEDS.search(source(module))
    return tuple(re.split(r",\s+", found[1])) if found else ()


@cache
def source(module: str) -> str:
    """The text of a module's file."""
    return resources.files(__package__).joinpath("lua", f"{module}.lua").read_text(encoding="utf-8")
