"""The scripts of the front door and of the verifier: their parts, each under its constants, in one text."""

from __future__ import annotations

from functools import cache
from importlib import resources

from controlplane.config.model import GatewayConfig
from controlplane.translate import decision_cache, jwt_authn, leases, rate_limit_quota
from controlplane.translate.jwt_authn import EnvoyKeys
from controlplane.translate.lua_literal import quoted


def front_door(config: GatewayConfig) -> str:
    """What every request passes first. A part that is turned off is left out, and `request_filter.lua` does without it.

    The parts with tables of their own are closed blocks: Lua 5.1 allows a function 200 local names.
    """
    constants = {"API_KEY_HEADER": quoted(config.auth.api_key_header), "VERIFIED_HERE": _is(jwt_authn.is_used(config))}
    parts = [_caller(config, **constants), _text("notes.lua")]
    if config.auth.decision_cache.enabled:
        parts += [_part("recall, remember", decision_cache.constants(config), "decision_cache.lua")]
    if leases.are_used(config):
        parts += [_part("spend, take, describe, describe_refusal, give_back", "", "leases.lua")]
    return "".join([*parts, _text("request_filter.lua")])


def verifier(config: GatewayConfig, keys: EnvoyKeys) -> str:
    """What a request passes behind jwt_authn, if the front door did not know its caller."""
    identify = _part("identify", jwt_authn.constants(config, keys), "identity.lua")
    return "".join([_caller(config), identify, _text("verify.lua")])


def _caller(config: GatewayConfig, **constants: str) -> str:
    constants |= {"IN_QUOTAS": _is(rate_limit_quota.is_used(config))}
    return "".join(f"local {name} = {value}\n" for name, value in constants.items()) + _text("caller.lua")


def _is(value: bool) -> str:
    return "true" if value else "false"


def _part(names: str, constants: str, file: str) -> str:
    """A script of which only these names are seen outside."""
    inner = ", ".join(f"{name} = {name}" for name in names.split(", "))
    outer = ", ".join(f"part.{name}" for name in names.split(", "))
    body = constants + _text(file) + f"return {{{inner}}}\n"
    return f"local {names}\ndo\n  local part = (function()\n{body}end)()\n  {names} = {outer}\nend\n"


@cache
def _text(file: str) -> str:
    return resources.files(__package__).joinpath("lua", file).read_text(encoding="utf-8")
