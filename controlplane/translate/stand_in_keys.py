"""Keys that stand in for a provider's while Envoy judges a document: what nodes really get holds keys, too.

Without them `auth.verified_by: envoy` would be judged without its jwt_authn filter. The private halves of the public
keys below were thrown away when they were made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controlplane.config.model import GatewayConfig, Provider
from controlplane.translate.jwt_authn import EnvoyKeys, held, variable

PUBLIC_KEYS: tuple[Mapping[str, Any], ...] = (
    {
        "kty": "RSA",
        "n": (
            "0o7cDf0hovgAVHONrg243AuhTQFrtwd7PdtGoMNYjPeZoPXT3xaD6Qzmrxl6QUZQhY2wl6kOebsSBHnWs28RngJPNF"
            "G4OXPSV-YYYu4mUy_3db_TGkVky7vk1IBUF1e_ExIIayoytq3T8RH66KELt2GOAWkSc0hFk0aJCb09ZjohICd67KT0"
            "542J49k428eTJW8sCfmxh7LYfPIawHzXDBfb3qjvd_vUT8AivUDsG_IMJU1uDh24laqf3NYS9agQQfYv9Krr_-"
            "DWOsVgF3fQLDvvamD-Py8GbUA8YncoujQ5dRrhfcW5-Drlh1ALHXVqtREFbgJT1NAeegaHrKOIYw"
        ),
        "e": "AQAB",
    },
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "5r1AVZUQOhQp15-ODZ09JNZc0dZLFjPd6gSIaTcuEl4",
        "y": "5YQPFp10cA2NlrJOYdNnkcnYCzmm7xaHw5sDCtPqy5I",
    },
    {
        "kty": "EC",
        "crv": "P-384",
        "x": "apgNtKLoZKQALoBIVDN99vI8QbA6aR4P00vHCjqDW4b5qiINZf0AFKgg4R9UA9Iu",
        "y": "u0gZHyaCVY4CvG0s0lFo9ftpSC8kL72oN9G2EyznDhsEXnF6UTtHwyDdJO1GGPWr",
    },
    {
        "kty": "EC",
        "crv": "P-521",
        "x": "AUmd2SptjQvv0RsVD7WeeFu0quskQJG6UMXGHnkcXRFv0wGklXMu7pAMexMVIsKAm-EyI0DcxnmZpPVxhNtQ5wvU",
        "y": "AQ_ineu8dbdCpRBQckv85-G6fRnQwDS4EPMsBorxaVpsUw4sXi2PmYSZdMoJdK0WEYFAE7CCK3yxPy8KnVZpXtC2",
    },
    {
        "x": "7NZ9swROS7QX1SiohTZ-hcLC0XlS3f4a2poH7eyFhOk",
        "kty": "OKP",
        "crv": "Ed25519",
    },
)
"""One for each family of algorithms: RSA, the three curves of NIST, and Ed25519."""

SECRET = "A" * 86
"""64 zero bytes as base64url text: long enough for HS512."""


def stand_in_keys(config: GatewayConfig) -> EnvoyKeys:
    """Keys for every provider that some Envoy may hold keys of, by environment or by fetching."""
    symmetric = frozenset(held(provider) for provider in config.auth.providers if provider.is_symmetric)
    public = {provider.name: {"keys": list(PUBLIC_KEYS)} for provider in _of_published(config)}
    return EnvoyKeys(symmetric, public)


def stand_in_environment(config: GatewayConfig) -> dict[str, str]:
    """The environment of an Envoy that holds the secrets of every provider that has some."""
    return {
        variable(provider.name): json.dumps({"keys": [_oct(algorithm) for algorithm in provider.algorithms]})
        for provider in config.auth.providers
        if provider.is_symmetric
    }


def _of_published(config: GatewayConfig) -> list[Provider]:
    return [provider for provider in config.auth.providers if provider.jwks_uri]


def _oct(algorithm: str) -> dict[str, str]:
    return {"kty": "oct", "alg": algorithm, "k": SECRET}
