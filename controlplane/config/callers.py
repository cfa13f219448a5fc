"""A verified caller's full name, which says who vouches for it: PROVIDER/SUBJECT."""

from __future__ import annotations

from controlplane.config.model import GatewayConfig

API_KEYS = "apikey"
"""Stands for the provider of callers with an API key."""


def full_name(given: str, config: GatewayConfig) -> str:
    """PROVIDER/SUBJECT as it is; anything else is a subject of the first provider."""
    provider, slash, subject = given.partition("/")
    known = {API_KEYS, *(each.name for each in config.auth.providers)}
    return given if slash and subject and provider in known else f"{config.auth.providers[0].name}/{given}"
