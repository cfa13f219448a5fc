"""CORS: which web pages may read answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from controlplane.config.fields import HeaderName, Method, Model, split_commas
from controlplane.config.origins import normalised


class Cors(Model):
    """Which origins may read answers in a browser."""

    allow_origins: Annotated[list[Annotated[str, AfterValidator(normalised)]], BeforeValidator(split_commas)] = []
    """The origins that may read responses, such as `https://app.example.com`; `https://*.example.com` for all of its
    subdomains, however deep; or `*`, which needs `allow_credentials: false`. One text with commas is taken too, as an
    environment variable can only hold text. Empty: the gateway takes no part in CORS, and what a service answers of it
    passes. Else a service's own `Access-Control-*` headers are removed.
    """
    allow_methods: list[Method] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    """The methods that a preflight allows."""
    allow_headers: list[HeaderName] = ["authorization", "content-type", "x-request-id", "x-correlation-id"]
    """The request headers that a preflight allows; `*` allows all. The API-key header is added if there are keys."""
    expose_headers: list[HeaderName] = []
    """Response headers that scripts may read, beside the two ids, `X-RateLimit-*` and `Retry-After`. `*` means all, and
    needs `allow_credentials: false`.
    """
    allow_credentials: bool = True
    """Whether browsers may send cookies and authorization."""
    max_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = 3600
    """How long a browser may keep a preflight's response, in seconds."""
