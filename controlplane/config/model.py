"""The operator's configuration, as strict models: what a document may say, with every default."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

AuthMode = Literal["required", "optional", "none"]
StoreFailure = Literal["share", "open", "closed"]
RequestLines = Literal["all", "failed"]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
RetryReason = Literal["connect-failure", "reset", "gateway-error", "5xx"]
"""Envoy's words. `gateway-error` is 502, 503 or 504; it and `5xx` take a lost connection for one."""

IDEMPOTENT: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
"""RFC 9110, section 9.2.2: sending one twice means the same as once."""

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""What a provider may pin. `none` is not among them and never will be."""

_ENVIRONMENT_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_TEMPLATE_SEGMENT = re.compile(r"\{[a-z_][a-z0-9_]*(=\*\*)?\}")
_LITERAL_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="lower case, digits, hyphens")]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Percent = Annotated[int, Field(ge=1, le=100)]


class Model(BaseModel):
    """Frozen, and an unknown key is a problem."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _commas(value: Any) -> Any:
    """`"a, b"` as `["a", "b"]`: an environment variable can only hold text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _secret_reference(value: str) -> str:
    match = _ENVIRONMENT_REFERENCE.fullmatch(value)
    if match is None:
        raise ValueError("a secret is never written here: refer to it as ${NAME}, or use secret_file")
    return value


def _subject(value: str) -> str:
    """What the authz service takes as a subject."""
    if len(value.encode()) > 256 or any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
        raise ValueError("a subject is 1 to 256 bytes of text without control characters")
    return value


def _credential_header(value: str) -> str:
    if value in {"authorization", "cookie", "host"}:
        raise ValueError(f"{value} has a meaning of its own")
    return value


def _json(value: dict[str, Any]) -> dict[str, Any]:
    """Policies travel as a protobuf Struct, whose numbers are doubles."""
    json.dumps(json.loads(json.dumps(value), parse_int=float), allow_nan=False)
    return value


def _path_template(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a path begins with /")
    segments = value.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "" and last:
            continue  # a trailing slash is significant
        if "=**" in segment and not last:
            raise ValueError("{name=**} may only be the last segment")
        if segment in {".", ".."}:
            raise ValueError("a path has no dot segments")
        if not (_LITERAL_SEGMENT.fullmatch(segment) or _TEMPLATE_SEGMENT.fullmatch(segment)):
            raise ValueError(f"segment {segment!r} is neither plain text nor {{name}} nor {{name=**}}")
    return value


def _upstream_url(value: str) -> str:
    parts = urlsplit(value)  # which drops line breaks and tabs: hence the first condition
    if not value.isprintable() or parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("an endpoint is http://HOST:PORT or https://HOST:PORT")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("an endpoint has no path, query or user: routes decide those")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port is not a number from 1 to 65535")
    return value


def _origin(value: str) -> str:
    if value == "*":
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
        raise ValueError("an origin is SCHEME://HOST[:PORT], or *")
    return value


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
CredentialHeader = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$"), AfterValidator(_credential_header)]


class Listener(Model):
    """Where Envoy listens, and what it takes from a client before anyone looks at the request."""

    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    trusted_hops: Annotated[int, Field(ge=0, le=16)] = 0
    max_connections: Annotated[int, Field(ge=1)] = 25_000
    max_request_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 1_048_576


class Claims(Model):
    """Which claims carry what."""

    subject: Text = "sub"
    tier: Text = "tier"
    scopes: Text = "scope"


class SigningSecret(Model):
    """One of a provider's secrets: rotation has two of them side by side."""

    kid: Text | None = None
    secret: Annotated[str, AfterValidator(_secret_reference)] | None = None
    secret_file: Text | None = None

    @model_validator(mode="after")
    def one_source(self) -> SigningSecret:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("give either secret or secret_file")
        return self


class Provider(Model):
    """Who may sign tokens, how, and how their claims are read."""

    name: Name
    algorithms: Annotated[list[Algorithm], Field(min_length=1)]
    secret: Annotated[str, AfterValidator(_secret_reference)] | None = None
    secret_file: Text | None = None
    secrets: list[SigningSecret] = []
    pem: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    jwks: Annotated[dict[str, Any], AfterValidator(_json)] | None = None
    jwks_file: Text | None = None
    jwks_uri: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048)] | None = None
    issuer: Text | None = None
    audiences: list[Text] = []
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 0
    claims: Claims = Claims()
    default_tier: Name = "free"
    on_bad_token: Literal["anonymous", "refuse"] = "anonymous"

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
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    subject: Annotated[str, Field(min_length=1), AfterValidator(_subject)]
    tier: Name = "free"


class RevokedSubject(Model):
    """Tokens of a subject that were issued before a moment (Unix seconds)."""

    provider: Name
    subject: Text
    issued_before: Annotated[int, Field(ge=0, le=1 << 40)]


class Revocations(Model):
    """Tokens that are good by themselves and still refused."""

    jti: list[str] = []
    subjects: list[RevokedSubject] = []


class DecisionCache(Model):
    """How long Envoy may go on with what authz decided on a token. Never past `exp`, nor past a change of policy."""

    enabled: bool = True
    seconds: Annotated[float, Field(gt=0, le=60)] = 5
    max_entries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Per Envoy worker."""


class Auth(Model):
    """Identity: who verifies it, and whom to believe."""

    verified_by: Literal["authz_service", "envoy"] = "authz_service"
    providers: Annotated[list[Provider], Field(min_length=1)]
    api_key_header: CredentialHeader = "x-api-key"
    api_keys: list[ApiKey] = []
    revocations: Revocations = Revocations()
    decision_cache: DecisionCache = DecisionCache()


class Limit(Model):
    """The numbers of a tier: at most `burst` at once, refilled at `rps`, and at most `rpm` in any 60 seconds."""

    rps: Annotated[int, Field(ge=1, le=1_000_000)]
    rpm: Annotated[int, Field(ge=1, le=1_000_000)]
    burst: Annotated[int, Field(ge=1, le=1_000_000)]


class RuleLimit(Limit):
    """The numbers of a rule beside the tiers. A shadow only counts, and reports what it would have refused."""

    shadow: bool = False
    counter: Name | None = None
    """The name it counts under, if not its own: what was spent then stays spent when the rule is renamed."""


class GlobalLimit(RuleLimit):
    """A rule that all callers share: on a service's routes, on the routes named, or on every route."""

    name: Name
    service: Name | None = None
    routes: list[Name] = []

    @model_validator(mode="after")
    def one_place(self) -> GlobalLimit:
        if self.service is not None and self.routes:
            raise ValueError("give either a service or routes; neither means every route")
        return self


class Leases(Model):
    """Whether Envoy may let a busy caller's next requests pass unasked, charged ahead by the rate-limit service."""

    enabled: bool = True


class Limits(Model):
    """How much each tier may ask, and what holds while the store does not answer."""

    enforced_by: Literal["ratelimit_service", "envoy"] = "ratelimit_service"
    anonymous_key: Literal["client_ip", "shared"] = "client_ip"
    on_store_failure: StoreFailure = "share"
    leases: Leases = Leases()
    tiers: dict[Name, Limit]
    shared: Annotated[list[GlobalLimit], Field(alias="global")] = []


class Cors(Model):
    """Which origins may read answers in a browser."""

    allow_origins: Annotated[list[Annotated[str, AfterValidator(_origin)]], BeforeValidator(_commas)] = []
    allow_methods: list[Method] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    allow_headers: list[HeaderName] = ["authorization", "content-type", "x-request-id", "x-correlation-id"]
    allow_credentials: bool = True
    max_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = 3600


class SecurityHeaders(Model):
    """Headers that tell browsers to be careful with answers."""

    enabled: bool = True
    frame_options: Literal["DENY", "SAMEORIGIN"] | None = "DENY"
    referrer_policy: Annotated[str, Field(pattern=r"^[a-z-]+(, ?[a-z-]+)*$")] | None = "no-referrer"


class Log(Model):
    """Which requests get a line on standard output. `failed`: those answered with 400 or more."""

    requests: RequestLines = "all"


class Endpoint(Model):
    """One address of a service."""

    url: Annotated[str, AfterValidator(_upstream_url)]
    weight: Annotated[int, Field(ge=1, le=128)] = 1


class Pool(Model):
    """Connections to each host of a service."""

    max_connections: Annotated[int, Field(ge=1)] = 100
    idle_timeout_seconds: Seconds = 90
    max_pending_requests: Annotated[int, Field(ge=1)] = 1024


class Breaker(Model):
    """When a service counts as broken, and for how long."""

    failures: Annotated[int, Field(ge=1, le=10_000)] = 10
    error_rate_percent: Percent = 50
    open_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 2
    half_open_requests: Annotated[int, Field(ge=1, le=1000)] = 1


class HealthCheck(Model):
    """How a service is asked whether it is well: by the control plane for /health, by every Envoy where it steers."""

    path: Annotated[str, Field(pattern=r"^/[^\s]*$")] = "/health"
    steer: bool = False
    """Whether each Envoy asks every endpoint by itself and passes over those that are not well."""
    interval_seconds: Annotated[float, Field(ge=0.1, le=300)] = 5
    timeout_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = 2
    closes_breaker: bool = False
    """Whether one good answer lets an endpoint back before the breaker's open time is over."""


class Retries(Model):
    """How often a failed request is sent again. Only GET, HEAD, OPTIONS, PUT and DELETE ever are."""

    attempts: Annotated[int, Field(ge=0, le=5)]
    """After the first one; 0 is none."""
    on: Annotated[
        list[RetryReason],
        # YAML 1.1 takes the plain word for a boolean; our reader does not, but other tools on the way here do (Helm).
        Field(min_length=1, validation_alias=AliasChoices("on", "true")),
    ] = ["connect-failure", "reset", "gateway-error"]
    per_try_timeout_seconds: Seconds | None = None


class ServiceRetries(Retries):
    """The same for all routes of a service, which share one budget."""

    budget_percent: Percent = 20
    """At most so many of the requests under way may be repetitions."""


class Service(Model):
    """What the gateway protects and forwards to."""

    name: Name
    endpoints: Annotated[list[Endpoint], Field(min_length=1)]
    timeout_seconds: Seconds = 30
    connect_timeout_seconds: Seconds = 5
    pool: Pool = Pool()
    breaker: Breaker = Breaker()
    health_check: HealthCheck | None = HealthCheck()
    retries: ServiceRetries | None = None
    slow_start_seconds: Seconds | None = None
    """How long an endpoint that is new, or well again by its check, takes to get its whole share."""
    critical: bool = False


class Match(Model):
    """Which requests a route takes."""

    path: Annotated[str, AfterValidator(_path_template)]
    methods: Annotated[list[Method], Field(min_length=1)]


class Route(Model):
    """A path and methods, the service behind them, and what is asked of the caller."""

    name: Name
    match: Match
    service: Name
    auth: AuthMode = "required"
    tiers: list[Name] = []
    scopes: list[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]] = []
    claims: dict[str, str | int | bool] = {}
    providers: list[Name] = []
    timeout_seconds: Seconds | None = None
    retries: Retries | None = None
    """Instead of the service's."""
    max_request_bytes: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    cost: Annotated[int, Field(ge=1, le=10_000)] = 1
    cost_from_response_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """A header of the upstream's answer that holds a whole number: charged then, beside `cost`."""
    limits: RuleLimit | None = None
    tier_limits: dict[Name, RuleLimit] = {}
    on_store_failure: StoreFailure | None = None


class GatewayConfig(Model):
    """The whole document."""

    version: Literal[1]
    listener: Listener = Listener()
    auth: Auth
    limits: Limits
    cors: Cors = Cors()
    security_headers: SecurityHeaders = SecurityHeaders()
    log: Log = Log()
    services: Annotated[list[Service], Field(min_length=1)]
    routes: list[Route] = []
