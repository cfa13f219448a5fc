"""The secrets of providers as key sets for Envoy's environment: in a configuration they never travel."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

_REFERENCE = re.compile(r"\$\{(\w+)\}")


def key_sets(config: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """A key set (RFC 7517) by provider name, for each provider whose secrets are all here.

    A document that does not say it well is the control plane's to refuse.
    """
    from controlplane.config import document
    from controlplane.errors import ConfigRejected

    try:
        providers = document.read(config.read_text()).data["auth"]["providers"]
        found = {str(provider["name"]): list(_keys(provider, environment)) for provider in providers}
    except (ConfigRejected, OSError, UnicodeDecodeError, LookupError, TypeError, AttributeError, ValueError):
        return {}
    return {name: json.dumps({"keys": keys}) for name, keys in found.items() if keys}


def held_secrets(config: Path, names: Collection[str]) -> list[str]:
    """What an Envoy says it holds: of each of these providers, its name and a digest of its references.

    The digest is of where the secrets came from, never of a secret: a provider whose references change later is no
    longer the one whose secrets this Envoy holds.
    """
    from controlplane.config import document
    from controlplane.config.jwks import references_digest

    providers = document.read(config.read_text()).data["auth"]["providers"] if names else []
    return sorted(
        f"{each['name']}:{references_digest(_references(each))}" for each in providers if each["name"] in names
    )


def _references(provider: Mapping[str, Any]) -> list[tuple[str | None, str | None]]:
    entries = [provider] if "secret" in provider else []
    return [(each.get("kid"), each.get("secret")) for each in (*entries, *provider.get("secrets", []))]


def _keys(provider: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """None where a secret is not here: Envoy would call the tokens that it signed bad."""
    own = [provider] if {"secret", "secret_file"} & provider.keys() else []
    entries = [*own, *provider.get("secrets", [])]
    secrets = [_secret(entry, environment) for entry in entries]
    if not all(secrets):
        return
    for entry, secret in zip(entries, secrets, strict=True):
        for algorithm in provider["algorithms"]:
            kid = {"kid": str(entry["kid"])} if entry.get("kid") else {}
            yield {"kty": "oct", "alg": str(algorithm), "k": _base64url(secret), **kid}


def _secret(entry: Mapping[str, Any], environment: Mapping[str, str]) -> bytes:
    if "secret_file" in entry:
        return Path(str(entry["secret_file"])).read_bytes().strip()
    reference = _REFERENCE.fullmatch(str(entry.get("secret", "")))
    return environment.get(reference[1], "").encode() if reference else b""


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
