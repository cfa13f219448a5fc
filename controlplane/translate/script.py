"""The front door's script: its parts, each under the constants that it needs, in one text."""

from __future__ import annotations

from functools import cache
from importlib import resources

from controlplane.model import GatewayConfig
from controlplane.translate import decisions, identity, leases
from controlplane.translate.identity import EnvoyKeys
from controlplane.translate.lua import quoted


def script(config: GatewayConfig, keys: EnvoyKeys) -> str:
    """The whole script. A part that is turned off is left out, and `front.lua` does without it.

    The parts with tables of their own are closed blocks: Lua 5.1 allows a function 200 local names.
    """
    parts = [f"local API_KEY_HEADER = {quoted(config.auth.api_key_header)}\n", _text("caller.lua")]
    if config.auth.decision_cache.enabled:
        parts += [_part("keep, recall, remember, CACHE_SECONDS", decisions.constants(config), "cache.lua")]
    if config.auth.verified_by == "envoy":
        parts += [_part("identify", identity.constants(config, keys), "identity.lua")]
    if leases.are_used(config):
        parts += [_part("spend, take, describe, describe_refusal, give_back", "", "leases.lua")]
    return "".join([*parts, _text("front.lua")])


def _part(names: str, constants: str, file: str) -> str:
    """A script of which only these names are seen outside."""
    inner = ", ".join(f"{name} = {name}" for name in names.split(", "))
    outer = ", ".join(f"part.{name}" for name in names.split(", "))
    body = constants + _text(file) + f"return {{{inner}}}\n"
    return f"local {names}\ndo\n  local part = (function()\n{body}end)()\n  {names} = {outer}\nend\n"


@cache
def _text(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
