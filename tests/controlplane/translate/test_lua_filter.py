"""The scripts as Envoy gets them: each compiles, and has what it needs."""

from __future__ import annotations

from typing import Any

import pytest
from lupa.luajit21 import LuaError, LuaRuntime

from controlplane.config.model import GatewayConfig
from controlplane.translate import lua_filter
from controlplane.translate.jwt_authn import EnvoyKeys, held
from tests.support.configs import a_config, default_config, rich_config, values

PROVIDERS = values()["auth"]["providers"]
LIMITS = values()["limits"]
CONFIGS = {
    "default": default_config(),
    "rich": rich_config(),
    "verified by Envoy": a_config(auth={"verified_by": "envoy", "providers": PROVIDERS}),
    "enforced by Envoy": a_config(limits=LIMITS | {"enforced_by": "envoy"}),
    "no cache": a_config(auth={"decision_cache": {"enabled": False}, "providers": PROVIDERS}),
    "no leases": a_config(limits=LIMITS | {"leases": {"enabled": False}}),
}


def loaded(script: str) -> Any:
    """The globals of a worker that has loaded the script."""
    lua = LuaRuntime(encoding="latin-1")
    lua.globals().EnvoyTimestampResolution = lua.table_from({"MILLISECOND": 1})
    lua.execute(script)
    return lua.globals()


def all_keys(config: GatewayConfig) -> EnvoyKeys:
    return EnvoyKeys(frozenset(held(provider) for provider in config.auth.providers))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_request_filter_loads(config: GatewayConfig) -> None:
    """With any part turned off; it has a function for requests and one for responses."""
    found = loaded(lua_filter.request_filter(config))

    assert found.envoy_on_request is not None
    assert found.envoy_on_response is not None


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_verifier_loads(config: GatewayConfig) -> None:
    """It looks at requests alone: a function for responses would cost every response."""
    found = loaded(lua_filter.verifier(config, all_keys(config)))

    assert found.envoy_on_request is not None
    assert found.envoy_on_response is None


@pytest.mark.parametrize(
    ("config", "absent"), [("no cache", "decision_cache"), ("no leases", "leases"), ("enforced by Envoy", "leases")]
)
def test_a_part_that_is_turned_off_is_left_out(config: str, absent: str) -> None:
    """Its text is not even sent."""
    script = lua_filter.request_filter(CONFIGS[config])

    assert lua_filter.source(absent) in lua_filter.request_filter(CONFIGS["default"])
    assert lua_filter.source(absent) not in script


def test_each_module_is_there_once_and_before_whoever_needs_it() -> None:
    """A module that two others need is one table for both."""
    script = lua_filter.request_filter(CONFIGS["rich"])
    modules = [line.split()[1] for line in script.splitlines() if line.endswith("= (function(...)")]

    assert len(modules) == len(set(modules))
    for number, module in enumerate(modules):
        assert set(lua_filter.needs(module)) <= {"names", "config", *modules[:number]}


@pytest.mark.parametrize("name", ["names.header.IDENTTY", "names.headers", "config.cache_second"])
def test_a_misspelt_name_stops_the_script(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Envoy rejects it when it is loaded; nil would be found out by a request."""
    source = lua_filter.source
    text = f"local names, config = ...\nlocal misspelt = {name}\nreturn {{misspelt = misspelt}}\n"
    monkeypatch.setattr(lua_filter, "source", lambda module: text if module == "misspelt" else source(module))
    lua_filter.needs.cache_clear()

    with pytest.raises(LuaError, match="no value is named"):
        loaded(lua_filter.linked("misspelt", {}))
    lua_filter.needs.cache_clear()


def test_numbers_are_no_part_of_a_script() -> None:
    """Limits change without a new listener."""
    changed = a_config(limits={"tiers": {tier: {"rps": 9, "rpm": 99, "burst": 9} for tier in ("anonymous", "free")}})

    assert lua_filter.request_filter(changed) == lua_filter.request_filter(a_config())
