"""Identity: who may sign tokens, API keys, revocations, and what is remembered of decisions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from controlplane.config.fields import (
    Algorithm,
    ClaimName,
    CredentialHeader,
    Model,
    Name,
    Text,
    check_json,
    check_secret_reference,
    check_subject,
    check_url,
)


class Claims(Model):
    """Which claims carry what. A name that begins with `/` is a JSON pointer (RFC 6901) to a claim inside others, such
    as `/realm_access/roles`; every other name is a claim's own, dots and all.
    """

    subject: ClaimName = "sub"
    """The claim that names the caller. Its value is text of 1 to 256 bytes without control characters."""
    tier: ClaimName = "tier"
    """The claim that names the caller's tier, in lower case. A token without it has `default_tier`."""
    scopes: ClaimName = "scope"
    """The claim that holds the scopes: text separated by spaces (RFC 8693, section 4.2), or a list."""


class SigningSecret(Model):
    """One of a provider's secrets: rotation has two of them side by side."""

    kid: Text | None = None
    """The key id that a token's header must have for this secret. Without it the secret is tried for tokens whose key
    id is not known.
    """
    secret: Annotated[str, AfterValidator(check_secret_reference)] | None = None
    """Where the secret is: a reference `${NAME}` to an environment variable of the authz service, of 32 bytes or more.
    """
    secret_file: Text | None = None
    """Where the secret is: a file that the authz service can read. A changed file is read again."""

    @model_validator(mode="after")
    def one_source(self) -> SigningSecret:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("give either secret or secret_file")
        return self


class Provider(Model):
    """Who may sign tokens, how, and how their claims are read."""

    name: Name
    """The provider's name: for upstreams in `X-User-Issuer`, in the log and in metrics, and before the subject in a
    caller's name (`PROVIDER/SUBJECT`).
    """
    algorithms: Annotated[list[Algorithm], Field(min_length=1)]
    """The signature algorithms (RFC 7518, RFC 8037) that a token of this provider may have. HS algorithms go with a
    secret, all others with public keys.
    """
    secret: Annotated[str, AfterValidator(check_secret_reference)] | None = None
    """The one shared secret of HS algorithms: a reference `${NAME}` to an environment variable of the authz service, of
    32 bytes or more. It is never stored or returned.
    """
    secret_file: Text | None = None
    """The one shared secret, in a file that the authz service can read. A changed file is read again."""
    secrets: list[SigningSecret] = []
    """Several shared secrets at once, as a rotation needs them."""
    pem: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    """One public key in PEM: RSA of 2048 bits or more, EC or Ed25519."""
    jwks: Annotated[dict[str, Any], AfterValidator(check_json)] | None = None
    """The public keys as a key set (RFC 7517), written here."""
    jwks_file: Text | None = None
    """A file with the key set, which the authz service can read. A changed file is read again."""
    jwks_uri: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048), AfterValidator(check_url)] | None = (
        None
    )
    """Where the identity provider publishes its key set, over HTTP or HTTPS. It is fetched in the background. Redirects
    are not followed: give the place itself. When it cannot be fetched, the last good keys are used for up to 24 hours.
    """
    jwks_refresh_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    """How often `jwks_uri` is asked, in seconds, at least. A key that is no longer published there is refused so many
    seconds and 5 more later, at most.
    """
    ca_file: Text | None = None
    """A file of certificates in PEM: the authorities that are trusted for `jwks_uri`, instead of the machine's. The
    authz service reads it, and with `verified_by: envoy` the control plane too. A changed file is read again.
    """
    issuer: Text | None = None
    """The value that the claim `iss` must have. Without it any issuer passes, so give it where there are several
    providers.
    """
    audiences: list[Text] = []
    """A token is denied unless its claim `aud` names one of these. Empty: `aud` is not looked at."""
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 0
    """How far the clocks may differ when `exp` and `nbf` are checked, in seconds."""
    claims: Claims = Claims()
    """The names of the claims that the gateway reads."""
    default_tier: Name = "free"
    """The tier of a token that names none."""
    on_bad_token: Literal["anonymous", "refuse"] = "anonymous"
    """What a bad token means on a route with `auth: optional`: the caller is anonymous, or the request is denied with
    401.
    """

    @property
    def is_symmetric(self) -> bool:
        """Whether tokens are signed with a secret that the gateway shares."""
        return bool(self.secret or self.secret_file or self.secrets)

    @model_validator(mode="after")
    def one_kind_of_key(self) -> Provider:
        secrets = [self.secret, self.secret_file, self.secrets or None]
        kinds = [any(secrets), self.pem, self.jwks, self.jwks_file, self.jwks_uri]
        if sum(bool(kind) for kind in kinds) != 1 or sum(bool(secret) for secret in secrets) > 1:
            raise ValueError("give exactly one of secret, secret_file, secrets, pem, jwks, jwks_file and jwks_uri")
        symmetric = {algorithm.startswith("HS") for algorithm in self.algorithms}
        if symmetric != {bool(kinds[0])}:
            raise ValueError("HS algorithms go with a secret, all others with a public key, and the two never mix")
        return self


class ApiKey(Model):
    """A key that a caller may send instead of a token. Only its SHA-256 is kept."""

    name: Name
    """A name for the key, for you. It is not sent anywhere."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The SHA-256 of the key, as 64 hexadecimal digits in lower case. The key itself is written nowhere."""
    subject: Annotated[str, Field(min_length=1), AfterValidator(check_subject)]
    """Whom the key stands for. The caller is `apikey/SUBJECT`."""
    tier: Name = "free"
    """The tier of requests with this key."""


class RevokedSubject(Model):
    """Tokens of a subject that were issued before a moment (Unix seconds)."""

    provider: Name
    """The provider whose tokens are meant, or `apikey`."""
    subject: Text
    """The subject whose tokens are meant."""
    issued_before: Annotated[int, Field(ge=0, le=1 << 40)]
    """Tokens whose claim `iat` is earlier than this, in Unix seconds, are denied, and tokens without `iat`."""


class Revocations(Model):
    """Tokens that are good by themselves and still refused."""

    jti: list[str] = []
    """Values of the claim `jti` (RFC 7519, section 4.1.7). Tokens that have one of them are denied."""
    subjects: list[RevokedSubject] = []
    """Subjects whose tokens were issued too early."""


class DecisionCache(Model):
    """How long Envoy may go on with what authz decided on a token. Never past `exp`, nor past a change of policy."""

    enabled: bool = True
    """Whether Envoy keeps what was decided on a token at all."""
    seconds: Annotated[float, Field(gt=0, le=60)] = 5
    """How long a decision is kept, in seconds."""
    max_entries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """How many decisions each Envoy worker keeps."""


class ForwardCredentials(Model):
    """Which of a caller's credentials an upstream gets. What it needs to know of the caller is in `X-User-ID`,
    `X-User-Tier` and `X-User-Issuer`.
    """

    authorization: bool = True
    """Whether `Authorization` is passed on, whatever is in it."""
    api_key: bool = False
    """Whether the header of `api_key_header` is passed on. Without `api_keys` it is no credential of the gateway's, and
    always passed on.
    """


class Auth(Model):
    """Identity: who verifies it, and whom to believe."""

    verified_by: Literal["authz_service", "envoy"] = "authz_service"
    """Who verifies tokens. `authz_service`: every token that is not in the decision cache is a call. `envoy`: Envoy's
    own `jwt_authn`, and a call only for what Envoy cannot decide.
    """
    providers: Annotated[list[Provider], Field(min_length=1)]
    """Who may sign tokens."""
    api_key_header: CredentialHeader = "x-api-key"
    """The request header that carries an API key."""
    api_keys: list[ApiKey] = []
    """Keys that callers may send instead of a token."""
    max_failures_per_minute: Annotated[int, Field(ge=1, le=1000)] = 60
    """How many wrong API keys each authz replica looks at for each client's address (an IPv6 client's /64) in any
    minute. Beyond that, keys that were not seen good within the last 10 minutes are 429, on optional routes too.
    """
    forward_credentials: ForwardCredentials = ForwardCredentials()
    """Which credentials upstreams get. The same on every route, routes with `auth: none` included."""
    revocations: Revocations = Revocations()
    """Tokens that are good by themselves and denied all the same."""
    decision_cache: DecisionCache = DecisionCache()
    """What Envoy remembers of decisions on tokens."""
