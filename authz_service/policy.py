"""The policy document: strict models, and problems that name the place and quote no value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from authz_service.errors import PolicyRejected
from authz_service.tokens import is_subject
from service_kit.json_pointer import is_pointer, is_well_formed
from service_kit.jwk import ALGORITHMS, SECRET_BYTES

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^/,\s]+$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Tier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$")]

KEY_SOURCES = ("secrets", "pem", "jwks", "jwks_file", "jwks_uri")
RESERVED_PROVIDER = "apikey"


class Model(BaseModel):
    """Strict, frozen, without unknown fields; errors quote no input.

    Numbers come out of a protobuf Struct as doubles, so no field may require an integer.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class SecretDocument(Model):
    """Where a secret is: an environment variable or a file. Never the secret itself."""

    kid: Text | None = None
    env: Text | None = None
    file: Text | None = None

    @model_validator(mode="after")
    def has_one_place(self) -> Self:
        """Either `env` or `file`."""
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self


class ClaimsDocument(Model):
    """The names of the claims that are read; one that begins with `/` is an RFC 6901 pointer."""

    subject: Text = "sub"
    tier: Text = "tier"
    scopes: Text = "scope"

    @field_validator("*")
    @classmethod
    def can_be_read(cls, name: str) -> str:
        """Whoever wrote a pointer that means nothing meant something else."""
        if is_pointer(name) and not is_well_formed(name):
            raise ValueError("not a JSON pointer (RFC 6901)")
        return name


class ProviderDocument(Model):
    """Whose tokens are accepted, and with which keys."""

    name: Name
    algorithms: Annotated[list[str], Field(min_length=1)]
    secrets: list[SecretDocument] | None = None
    pem: Annotated[str, StringConstraints(min_length=1, max_length=65536)] | None = None
    jwks: dict[str, Any] | None = None
    jwks_file: Text | None = None
    jwks_uri: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)] | None = None
    jwks_refresh_seconds: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 60.0
    ca_file: Text | None = None
    issuer: Text | None = None
    audiences: list[Text] = []
    leeway_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    claims: ClaimsDocument = ClaimsDocument()
    default_tier: Tier = "free"
    on_bad_token: Literal["anonymous", "refuse"] = "anonymous"

    @field_validator("name")
    @classmethod
    def is_not_reserved(cls, name: str) -> str:
        """Not the name that stands for API keys."""
        if name == RESERVED_PROVIDER:
            raise ValueError(f"{RESERVED_PROVIDER} stands for callers with an API key")
        return name

    @field_validator("algorithms")
    @classmethod
    def are_known(cls, algorithms: list[str]) -> list[str]:
        """Algorithms that we can verify."""
        unknown = sorted(set(algorithms) - ALGORITHMS)
        if unknown:
            raise ValueError(f"not supported: {', '.join(unknown)}")
        return algorithms

    @model_validator(mode="after")
    def has_one_key_source(self) -> Self:
        """Exactly one of KEY_SOURCES."""
        given = [source for source in KEY_SOURCES if getattr(self, source)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KEY_SOURCES)}; there are {len(given)}")
        return self

    @model_validator(mode="after")
    def keeps_secrets_and_public_keys_apart(self) -> Self:
        """No public key is ever used as an HMAC secret, which anybody could then sign with (RFC 8725 §2.1, §3.1)."""
        secret = [algorithm for algorithm in self.algorithms if algorithm in SECRET_BYTES]
        if self.secrets and len(secret) != len(self.algorithms):
            raise ValueError("a provider with secrets has HS algorithms only")
        if (self.pem or self.jwks or self.jwks_uri) and secret:
            raise ValueError(f"{', '.join(secret)} cannot be used with public keys")
        if self.jwks_file and 0 < len(secret) < len(self.algorithms):
            raise ValueError("HS algorithms and public keys need a provider each")
        return self


class ApiKeyDocument(Model):
    """One API key, by its SHA-256 in hexadecimal, and the caller that it identifies."""

    sha256: Sha256
    subject: str
    tier: Tier

    @field_validator("subject")
    @classmethod
    def is_a_subject(cls, subject: str) -> str:
        """Text that can be a header value."""
        if not is_subject(subject):
            raise ValueError("a subject is 1 to 256 bytes of text without control characters")
        return subject


class SubjectRevocationDocument(Model):
    """All of one subject's credentials that were issued before a time, in Unix seconds."""

    provider: Text
    subject: Text
    issued_before: Annotated[float, Field(allow_inf_nan=False)]


class RevocationsDocument(Model):
    """Tokens by `jti`, and subjects by time, that are no longer valid."""

    jti: list[str] = []
    subjects: list[SubjectRevocationDocument] = []


class PolicyDocument(Model):
    """What the control plane sends: `mgw.policy.v1.AuthzPolicy`."""

    epoch: Annotated[str, StringConstraints(max_length=64)] = ""
    """Names this policy in responses. Who caches a response drops it when the epoch is another."""
    tiers: Annotated[list[Tier], Field(min_length=1)]
    providers: list[ProviderDocument] = []
    api_keys: list[ApiKeyDocument] = []
    api_key_header: HeaderName | None = None
    max_failures_per_minute: Annotated[float, Field(ge=1, le=1000)] = 60
    """How many wrong API keys are looked at for each client's network."""
    revocations: RevocationsDocument = RevocationsDocument()

    def files(self) -> list[str]:
        """The files that it refers to. A change in one of them is a change of the policy."""
        secrets = [secret.file for provider in self.providers for secret in provider.secrets or ()]
        key_sets = [provider.jwks_file for provider in self.providers]
        return sorted({path for path in (*secrets, *key_sets) if path is not None})

    @model_validator(mode="after")
    def has_unique_names(self) -> Self:
        """No two providers with one name, and no API key twice."""
        names = [provider.name for provider in self.providers]
        if len(set(names)) != len(names):
            raise ValueError("two providers have one name")
        digests = [key.sha256.lower() for key in self.api_keys]
        if len(set(digests)) != len(digests):
            raise ValueError("one API key occurs twice")
        return self

    @model_validator(mode="after")
    def names_known_tiers(self) -> Self:
        """Every default tier is one of `tiers`."""
        for provider in self.providers:
            if provider.default_tier not in self.tiers:
                raise ValueError(f"provider {provider.name}: no tier named {provider.default_tier}")
        return self

    @model_validator(mode="after")
    def reads_keys_from_their_own_header(self) -> Self:
        """API keys have a header, and it is no header with another meaning."""
        if self.api_keys and self.api_key_header is None:
            raise ValueError("api_keys need an api_key_header")
        if self.api_key_header is not None and self.api_key_header.lower() in ("authorization", "cookie", "host"):
            raise ValueError(f"api_key_header cannot be {self.api_key_header}")
        return self


def read_policy(document: Mapping[str, Any]) -> PolicyDocument:
    """The policy in a document. Raises PolicyRejected with at most ten problems."""
    try:
        return PolicyDocument.model_validate(document)
    except ValidationError as error:
        problems = [f"{_place(problem['loc'])}{problem['msg']}" for problem in error.errors(include_input=False)]
        raise PolicyRejected("; ".join(problems[:10])) from None


def read_policy_text(text: str | bytes) -> PolicyDocument:
    """The policy in a JSON text. Raises PolicyRejected."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyRejected(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise PolicyRejected("not a JSON object")
    return read_policy(document)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) + ": " if location else ""
