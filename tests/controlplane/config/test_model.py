"""The document's fields: what each accepts, and what holds where nothing is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from controlplane.config import load, model
from tests.support.configs import default_config, default_text, values


def messages(kind: type[BaseModel], given: dict[str, Any]) -> dict[str, str]:
    """What is wrong with values, by the place in them."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


PROVIDER = {"name": "p", "algorithms": ["HS256"], "secret": "${S}"}
PUBLIC = {"name": "p", "algorithms": ["RS256"]}
ROUTE = {"name": "r", "match": {"path": "/a", "methods": ["GET"]}, "service": "s"}


def test_the_default_document_is_accepted() -> None:
    """The document that ships needs nothing of its environment."""
    assert len(default_config().routes) == 17


@pytest.mark.parametrize(
    ("tier", "rps", "rpm", "burst"),
    [("anonymous", 5, 100, 10), ("free", 10, 200, 20), ("pro", 50, 1000, 100), ("enterprise", 200, 5000, 400)],
)
def test_default_limits(tier: str, rps: int, rpm: int, burst: int) -> None:
    """The tiers' numbers, as published."""
    assert default_config().limits.tiers[tier] == model.Limit(rps=rps, rpm=rpm, burst=burst)


@pytest.mark.parametrize(
    ("service", "failures", "error_rate_percent", "open_seconds", "critical"),
    [
        ("discovery", 20, 50, 3, True),
        ("sona", 10, 40, 2, False),
        ("sync", 10, 50, 2, False),
        ("auth", 10, 50, 2, True),
    ],
)
def test_default_breakers(
    service: str, failures: int, error_rate_percent: int, open_seconds: float, critical: bool
) -> None:
    """The breakers' numbers, as published, and which services are critical."""
    found = next(each for each in default_config().services if each.name == service)

    assert found.breaker == model.Breaker(
        failures=failures, error_rate_percent=error_rate_percent, open_seconds=open_seconds, half_open_requests=1
    )
    assert found.critical is critical
    assert (found.timeout_seconds, found.pool.max_connections, found.pool.idle_timeout_seconds) == (30, 100, 90)


def test_default_settings() -> None:
    """Where the document says nothing, the published defaults hold."""
    config = default_config()
    platform = config.auth.providers[0]

    assert config.listener == model.Listener(host="0.0.0.0", port=8080, trusted_hops=0)
    assert (config.listener.max_connections, config.listener.max_request_bytes) == (25_000, 1_048_576)
    assert (platform.algorithms, platform.default_tier, platform.leeway_seconds) == (["HS256"], "free", 0)
    assert platform.on_bad_token == "anonymous"
    assert (config.limits.anonymous_key, config.limits.on_store_failure) == ("client_ip", "share")
    assert (config.cors.allow_origins, config.cors.max_age_seconds) == ([], 3600)
    assert (config.security_headers.enabled, config.log.requests) == (True, "all")


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("API_GATEWAY_HOST", "::1", lambda config: config.listener.host),
        ("API_GATEWAY_PORT", "9000", lambda config: str(config.listener.port)),
        ("DISCOVERY_SERVICE_URL", "http://a:1", lambda config: config.services[0].endpoints[0].url),
        ("SONA_SERVICE_URL", "http://a:2", lambda config: config.services[1].endpoints[0].url),
        ("SYNC_SERVICE_URL", "http://a:3", lambda config: config.services[2].endpoints[0].url),
        ("AUTH_SERVICE_URL", "http://a:4", lambda config: config.services[3].endpoints[0].url),
        ("ALLOWED_ORIGINS", "https://a, https://b", lambda config: ", ".join(config.cors.allow_origins)),
    ],
)
def test_the_environment_fills_the_default_document(variable: str, value: str, read: Any) -> None:
    """Each published variable reaches its field."""
    assert read(load.load(default_text(), {variable: value})[1]) == value


def test_a_configuration_is_frozen() -> None:
    """Nobody changes a configuration in place."""
    with pytest.raises(ValidationError):
        default_config().listener.port = 1


@pytest.mark.parametrize(
    "secret", ["hunter2", "${JWT_SECRET:-hunter2}", "x${JWT_SECRET}", "${JWT_SECRET} ", "${1}", ""]
)
def test_a_literal_secret_is_refused(secret: str) -> None:
    """A secret is a reference to a variable and nothing else; a default would be a secret in the document."""
    provider = messages(model.Provider, PROVIDER | {"secret": secret})
    rotating = messages(model.SigningSecret, {"secret": secret})

    assert "never written here" in provider["secret"]
    assert "never written here" in rotating["secret"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PUBLIC, "exactly one of"),
        (PROVIDER | {"secret_file": "/s"}, "exactly one of"),
        (PROVIDER | {"jwks_uri": "https://a/keys"}, "exactly one of"),
        (PROVIDER | {"secrets": [{"secret": "${T}"}]}, "exactly one of"),
        (PUBLIC | {"pem": "x", "jwks_file": "/k"}, "exactly one of"),
        (PUBLIC | {"secret": "${S}"}, "never mix"),
        (PROVIDER | {"algorithms": ["HS256", "RS256"]}, "never mix"),
        (PUBLIC | {"jwks": {"keys": []}, "algorithms": ["HS256"]}, "never mix"),
        (PUBLIC | {"pem": "x", "algorithms": ["ES256", "HS512"]}, "never mix"),
        (PROVIDER | {"algorithms": ["none"]}, "Input should be"),
        (PROVIDER | {"algorithms": ["hs256"]}, "Input should be"),
        (PROVIDER | {"algorithms": []}, "at least 1 item"),
        (PROVIDER | {"leeway_seconds": 301}, "less than or equal to 300"),
        (PROVIDER | {"claims": {"subject": ""}}, "at least 1 character"),
        (PROVIDER | {"audiences": [""]}, "at least 1 character"),
        (PUBLIC | {"jwks_uri": "ftp://a"}, "match pattern"),
        (PUBLIC | {"jwks": {"keys": [{"n": float("nan")}]}}, "JSON compliant"),
        (PUBLIC | {"jwks": {"keys": [10**400]}}, "JSON compliant"),
    ],
)
def test_bad_providers(given: dict[str, Any], message: str) -> None:
    """A provider has one kind of key, and algorithms that fit it: secrets and public keys never mix."""
    assert message in " ".join(messages(model.Provider, given).values())


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"])
@pytest.mark.parametrize("key", [{"pem": "x"}, {"jwks": {"keys": []}}, {"jwks_file": "/k"}, {"jwks_uri": "https://a"}])
def test_good_providers(algorithm: str, key: dict[str, Any]) -> None:
    """Every public-key algorithm goes with every kind of public key."""
    provider = model.Provider.model_validate(PUBLIC | {"algorithms": [algorithm]} | key)

    assert provider.algorithms == [algorithm]


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/", "/{id}", "/{id}/b", "/a/{rest=**}", "/~a.b_c-d!$&'()*+,;=:@", "/{a}/{b}/{c_1=**}"],
)
def test_good_paths(path: str) -> None:
    """A path is plain segments and parameters; a trailing slash counts."""
    assert model.Match(path=path, methods=["GET"]).path == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a", "begins with /"),
        ("", "begins with /"),
        ("//a", "neither plain text"),
        ("/a//b", "neither plain text"),
        ("/a b", "neither plain text"),
        ("/a%20b", "neither plain text"),
        ("/a?b", "neither plain text"),
        ("/a#b", "neither plain text"),
        ("/{Id}", "neither plain text"),
        ("/{}", "neither plain text"),
        ("/x{id}", "neither plain text"),
        ("/{id}{id}", "neither plain text"),
        ("/{a=*}", "neither plain text"),
        ("/é", "neither plain text"),
        ("/a\n", "neither plain text"),
        ("/{a=**}/b", "only be the last segment"),
        ("/./a", "dot segments"),
        ("/a/..", "dot segments"),
    ],
)
def test_bad_paths(path: str, message: str) -> None:
    """A path that normalisation would change, or that no matcher can express, is refused."""
    assert message in messages(model.Match, {"path": path, "methods": ["GET"]})["path"]


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.b-c_d:1/", "http://10.0.0.1:65535", "http://[::1]:80", "HTTP://A", "http://a:"]
)
def test_good_endpoints(url: str) -> None:
    """An endpoint is a scheme, a host and a port."""
    assert model.Endpoint(url=url).weight == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("a:80", "http://HOST:PORT"),
        ("ftp://a", "http://HOST:PORT"),
        ("http://", "http://HOST:PORT"),
        ("http://a b", "http://HOST:PORT"),
        ("http://a\nb", "http://HOST:PORT"),
        ("http://a\t", "http://HOST:PORT"),
        ("http://é", "http://HOST:PORT"),
        ("http://a/b", "no path"),
        ("http://a?b", "no path"),
        ("http://a#b", "no path"),
        ("http://u:p@a", "no path"),
        ("http://@a", "no path"),
        ("http://a:0", "1 to 65535"),
        ("http://a:65536", "1 to 65535"),
        ("http://a:x", "1 to 65535"),
        ("http://[::1", "IPv6"),
    ],
)
def test_bad_endpoints(url: str, message: str) -> None:
    """Anything more or less than that is refused."""
    assert message in messages(model.Endpoint, {"url": url})["url"]


@pytest.mark.parametrize(
    ("kind", "given", "place"),
    [
        (model.Cors, {"allow_origins": ["a.example"]}, "allow_origins.0"),
        (model.Cors, {"allow_origins": ["https://a/"]}, "allow_origins.0"),
        (model.Cors, {"expose_headers": ["x y"]}, "expose_headers.0"),
        (model.Route, ROUTE | {"cors": {"allow_origins": "https://a,b"}}, "cors.allow_origins.1"),
        (model.Cors, {"allow_origins": "https://a,ftp://b"}, "allow_origins.1"),
        (model.Cors, {"allow_headers": ["x\r\nset-cookie: a"]}, "allow_headers.0"),
        (model.Cors, {"allow_methods": ["TRACE"]}, "allow_methods.0"),
        (model.Log, {"query": "some"}, "query"),
        (model.Log, {"mask_parameters": ["a&b"]}, "mask_parameters.0"),
        (model.Log, {"mask_parameters": ["-_-"]}, "mask_parameters.0"),
        (model.Log, {"mask_parameters": ["a" * 65]}, "mask_parameters.0"),
        (model.Log, {"mask_parameters": ["a"] * 101}, "mask_parameters"),
        (model.SecurityHeaders, {"referrer_policy": "%ENVIRONMENT(HOME)%"}, "referrer_policy"),
        (model.SecurityHeaders, {"referrer_policy": "a\r\nb: c"}, "referrer_policy"),
        (model.SecurityHeaders, {"frame_options": "ALLOW"}, "frame_options"),
        (model.Listener, {"port": 0}, "port"),
        (model.Listener, {"max_request_bytes": 0}, "max_request_bytes"),
        (model.Listener, {"hosts": "a"}, "hosts"),
        (model.ApiKey, {"name": "k", "sha256": "A" * 64, "subject": "s"}, "sha256"),
        (model.ApiKey, {"name": "k", "sha256": "a" * 64, "subject": "é" * 129}, "subject"),
        (model.ApiKey, {"name": "k", "sha256": "a" * 64, "subject": "a\nb"}, "subject"),
        *(
            (model.Auth, {"providers": [PROVIDER], "api_key_header": name}, "api_key_header")
            for name in (
                "authorization",
                "Cookie",
                "content-type",
                "X-User-ID",
                "x-mgw-caller",
                "x-forwarded-for",
                "x y",
            )
        ),
        (model.Auth, {"providers": []}, "providers"),
        (model.RevokedSubject, {"provider": "p", "subject": "s", "issued_before": 10**400}, "issued_before"),
        (model.Limit, {"rps": 0, "rpm": 1, "burst": 1}, "rps"),
        (model.Limit, {"rps": 1, "rpm": 1_000_001, "burst": 1}, "rpm"),
        (model.Limit, {"rps": 0.0004, "rpm": 1, "burst": 1}, "rps"),
        (model.Limit, {"rps": 0.2504, "rpm": 1, "burst": 1}, "rps"),
        (model.Limit, {"rps": 1, "rpm": 1.5, "burst": 1}, "rpm"),
        (model.Service, {"name": "s", "endpoints": []}, "endpoints"),
        (model.Service, {"name": "S", "endpoints": [{"url": "http://a"}]}, "name"),
        (model.Service, {"name": "s-", "endpoints": [{"url": "http://a"}]}, "name"),
        (model.Service, {"name": "s", "endpoints": [{"url": "http://a", "weight": 0}]}, "endpoints.0.weight"),
        (model.Service, {"name": "s", "endpoints": [{"url": "http://a"}], "timeout_seconds": 0}, "timeout_seconds"),
        (model.HealthCheck, {"path": "health"}, "path"),
        (model.Breaker, {"error_rate_percent": 101}, "error_rate_percent"),
        (model.Breaker, {"open_seconds": 0}, "open_seconds"),
        (model.Route, ROUTE | {"auth": "maybe"}, "auth"),
        (model.Route, ROUTE | {"scopes": ["a b"]}, "scopes.0"),
        (model.Route, ROUTE | {"cost": -1}, "cost"),
        (model.Route, ROUTE | {"on_store_failure": "panic"}, "on_store_failure"),
        (model.Route, ROUTE | {"match": {"path": "/a", "methods": []}}, "match.methods"),
        (model.Route, ROUTE | {"match": {"path": "/a", "methods": ["TRACE"]}}, "match.methods.0"),
        (model.GatewayConfig, values(version=2), "version"),
        (model.GatewayConfig, values(services=[]), "services"),
    ],
)
def test_bad_fields(kind: type[BaseModel], given: dict[str, Any], place: str) -> None:
    """Each field has its bounds, and a key that nobody knows is a problem."""
    assert list(messages(kind, given)) == [place]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_has_one_spelling(written: str, read: str) -> None:
    """An address is a network of one, and IPv4 in the guise of IPv6 is IPv4."""
    assert model.Listener(trusted_cidrs=[written]).trusted_cidrs == [read]
