"""Types that the configuration's models share, and what a value has to look like."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service_kit.json_pointer import is_pointer, is_well_formed

AuthMode = Literal["required", "optional", "none"]
StoreFailure = Literal["share", "open", "closed"]
RequestLines = Literal["all", "failed"]
ShownQuery = Literal["full", "masked", "none"]
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
_MEANINGFUL_HEADER = re.compile(
    "authorization|cookie|host|connection|te|trailer|transfer-encoding|upgrade|keep-alive|expect|date|range|origin"
    "|(accept|access-control|content|if|proxy|sec)-.*|accept|cache-control|forwarded|user-agent|via"
    "|x-(user|mgw|gateway|envoy|forwarded)-.*|x-real-ip|x-request-id|x-correlation-id|x-ai-agent|ai-agent-id"
)
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_TEMPLATE_SEGMENT = re.compile(r"\{[a-z_][a-z0-9_]*(=\*\*)?\}")
_LITERAL_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="lower case, digits, hyphens")]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Percent = Annotated[int, Field(ge=1, le=100)]


Status = Annotated[str, Field(pattern=r"^[1-5][0-9]{2}$")]
"""An HTTP status, as a mapping's key."""


def check_rate(value: float) -> float:
    """The limiter counts in thousandths of a request a second, and would round anything finer."""
    if round(value, 3) != value:
        raise ValueError("at most three decimals: a thousandth of a request a second is the finest step")
    return value


Rate = Annotated[float, Field(ge=0.001, le=1_000_000), AfterValidator(check_rate)]
"""Requests a second. `0.2` is one every five seconds."""


def with_head(methods: Iterable[str]) -> set[str]:
    """The methods, with HEAD wherever there is GET (RFC 9110, section 9.3.2)."""
    found = set(methods)
    return found | {"HEAD"} if "GET" in found else found


class Model(BaseModel):
    """Frozen, and an unknown key is a problem."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def split_commas(value: Any) -> Any:
    """`"a, b"` as `["a", "b"]`: an environment variable can only hold text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def check_secret_reference(value: str) -> str:
    match = _ENVIRONMENT_REFERENCE.fullmatch(value)
    if match is None:
        raise ValueError("a secret is never written here: refer to it as ${NAME}, or use secret_file")
    return value


def check_subject(value: str) -> str:
    """What the authz service takes as a subject."""
    if len(value.encode()) > 256 or any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
        raise ValueError("a subject is 1 to 256 bytes of text without control characters")
    return value


def check_claim_name(value: str) -> str:
    if is_pointer(value) and not is_well_formed(value):
        raise ValueError("a name that begins with / is a JSON pointer (RFC 6901): write ~ in it as ~0")
    return value


def check_credential_header(value: str) -> str:
    """In lower case. The header is removed before the upstream, so it has no other meaning to anybody on the way."""
    name = value.lower()
    if _MEANINGFUL_HEADER.fullmatch(name):
        raise ValueError(f"{name} has a meaning of its own")
    return name


def check_json(value: dict[str, Any]) -> dict[str, Any]:
    """Policies travel as a protobuf Struct, whose numbers are doubles."""
    json.dumps(json.loads(json.dumps(value), parse_int=float), allow_nan=False)
    return value


def check_path_template(value: str) -> str:
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


def check_upstream_url(value: str) -> str:
    parts = urlsplit(value)  # which drops line breaks and tabs: hence the first condition
    if not value.isprintable() or parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("an endpoint is http://HOST:PORT or https://HOST:PORT")
    if parts.path not in {"", "/"} or {"?", "#"} & set(value) or "@" in parts.netloc:  # an empty query is one
        raise ValueError("an endpoint has no path, query or user: routes decide those")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port is not a number from 1 to 65535")
    return value


def check_url(value: str) -> str:
    """A place that a client can connect to; what it finds there is another question."""
    try:
        parts = urlsplit(value)
        is_fit = bool(parts.hostname) and parts.port != 0 and value.isprintable()
    except ValueError:
        is_fit = False
    if not is_fit:
        raise ValueError("not a URL of the form https://HOST[:PORT]/PATH")
    return value


def check_cidr(value: str) -> str:
    """An address or a network in its one spelling. IPv4 in the guise of IPv6 is IPv4."""
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        try:
            hint = f": the network is {ipaddress.ip_network(value, strict=False)}"
        except ValueError:
            hint = ""
        raise ValueError(f"neither an address nor a network such as 10.0.0.0/8{hint}") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return f"{mapped}/{network.prefixlen - 96}"
    return str(network)


ClaimName = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(check_claim_name)]
"""A claim's own name, or where it is: a name that begins with `/` is an RFC 6901 pointer."""
Cidr = Annotated[str, AfterValidator(check_cidr)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
CredentialHeader = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$"), AfterValidator(check_credential_header)]
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~\[\]-]*[A-Za-z0-9][A-Za-z0-9._~\[\]-]*$", max_length=64)]
"""A parameter of a query. What is compared are its letters and digits."""
