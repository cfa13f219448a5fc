"""Is this configuration one that the gateway can run? One small rule a function; every problem, not the first."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

from controlplane.config.jwks import from_pem, pinned
from controlplane.config.model import (
    IDEMPOTENT,
    Cors,
    GatewayConfig,
    GlobalLimit,
    Limit,
    Retries,
    Route,
    RouteLimit,
    RuleLimit,
    TierLimit,
)
from service_kit.bounded_yaml import Path

Finding = tuple[Path, str]
Rule = Callable[[GatewayConfig], Iterator[Finding]]

RESERVED_PATH = re.compile(r"^/health(/|$)")
"""Paths that the gateway answers itself."""

API_KEYS = "apikey"
"""Stands for callers with an API key wherever a provider is named; no provider can have the name."""


def check(config: GatewayConfig) -> list[Finding]:
    """Every finding of every rule, in the order of RULES."""
    return [finding for rule in RULES for finding in rule(config)]


def names_are_unique(config: GatewayConfig) -> Iterator[Finding]:
    lists: tuple[tuple[Path, Iterable[str]], ...] = (
        (("services",), [service.name for service in config.services]),
        (("routes",), [route.name for route in config.routes]),
        (("auth", "providers"), [provider.name for provider in config.auth.providers]),
        (("auth", "api_keys"), [key.name for key in config.auth.api_keys]),
        (("limits", "global"), [rule.name for rule in config.limits.shared]),
    )
    for path, names in lists:
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                yield (*path, index, "name"), f"the name {name!r} is taken"
            seen.add(name)
    digests = [key.sha256 for key in config.auth.api_keys]
    for index, digest in enumerate(digests):
        if digest in digests[:index]:
            yield ("auth", "api_keys", index, "sha256"), "this key has a name already"


def names_are_not_ours(config: GatewayConfig) -> Iterator[Finding]:
    for index, service in enumerate(config.services):
        if service.name.startswith("mgw-"):
            yield ("services", index, "name"), "names that begin with mgw- are the gateway's own"
    for index, route in enumerate(config.routes):
        if route.name.startswith("mgw-"):
            yield ("routes", index, "name"), "names that begin with mgw- are the gateway's own"
    for index, provider in enumerate(config.auth.providers):
        if provider.name == API_KEYS:
            yield ("auth", "providers", index, "name"), "the name 'apikey' stands for callers with an API key"


def routes_name_known_services(config: GatewayConfig) -> Iterator[Finding]:
    known = {service.name for service in config.services}
    for index, route in enumerate(config.routes):
        if route.service not in known:
            yield ("routes", index, "service"), f"no service named {route.service!r}"


def routes_do_not_overlap(config: GatewayConfig) -> Iterator[Finding]:
    """Two routes that take the same method on the same shape of path: nobody could say which one answers."""
    taken: dict[tuple[str, str], str] = {}
    for index, route in enumerate(config.routes):
        pattern = re.sub(r"\{[^}]*?(=\*\*)?\}", r"{\1}", route.match.path)
        for method in route.match.methods:
            other = taken.setdefault((pattern, method), route.name)
            if other != route.name:
                yield ("routes", index, "match"), f"{method} {route.match.path} is taken by route {other!r}"


def routes_leave_health_alone(config: GatewayConfig) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        if RESERVED_PATH.match(route.match.path):
            yield ("routes", index, "match", "path"), "the gateway answers /health itself"


def tiers_are_known(config: GatewayConfig) -> Iterator[Finding]:
    known = config.limits.tiers
    if "anonymous" not in known:
        yield ("limits", "tiers"), "the tier 'anonymous' is required: it holds for callers without a name"
    uses: list[tuple[Path, str]] = [
        (("auth", "providers", index, "default_tier"), provider.default_tier)
        for index, provider in enumerate(config.auth.providers)
    ]
    uses += [(("auth", "api_keys", index, "tier"), key.tier) for index, key in enumerate(config.auth.api_keys)]
    for index, route in enumerate(config.routes):
        uses += [(("routes", index, "tiers", position), tier) for position, tier in enumerate(route.tiers)]
        uses += [(("routes", index, "tier_limits", tier), tier) for tier in route.tier_limits]
    for path, tier in uses:
        if tier not in known:
            yield path, f"no tier named {tier!r}"


def providers_are_known(config: GatewayConfig) -> Iterator[Finding]:
    known = {API_KEYS, *(provider.name for provider in config.auth.providers)}
    for index, route in enumerate(config.routes):
        for position, name in enumerate(route.providers):
            if name not in known:
                yield ("routes", index, "providers", position), f"no provider named {name!r}"
    for index, revoked in enumerate(config.auth.revocations.subjects):
        if revoked.provider not in known:
            yield ("auth", "revocations", "subjects", index, "provider"), f"no provider named {revoked.provider!r}"


def keys_can_be_read(config: GatewayConfig) -> Iterator[Finding]:
    for index, provider in enumerate(config.auth.providers):
        if provider.pem is None:
            continue
        try:
            usable = pinned(from_pem(provider.pem), provider)["keys"]
        except ValueError as error:
            yield ("auth", "providers", index, "pem"), f"not a public key in PEM: {error}"
            continue
        if not usable:
            yield (
                ("auth", "providers", index, "pem"),
                "the key fits none of the algorithms, or is an RSA key under 2048 bits",
            )


def fetched_keys_have_a_source(config: GatewayConfig) -> Iterator[Finding]:
    """What says how a key set is fetched says nothing of other keys."""
    for index, provider in enumerate(config.auth.providers):
        path: Path = ("auth", "providers", index)
        if provider.jwks_uri is None and "jwks_refresh_seconds" in provider.model_fields_set:
            yield (*path, "jwks_refresh_seconds"), "goes with jwks_uri alone"
        if provider.ca_file and not (provider.jwks_uri or "").startswith("https:"):
            yield (*path, "ca_file"), "goes with a jwks_uri that begins with https:"


def quotas_count_requests(config: GatewayConfig) -> Iterator[Finding]:
    """Envoy's quota filter takes one token a request, whatever the route."""
    for index, route in enumerate(config.routes):
        if config.limits.enforced_by == "envoy" and route.cost != 1:
            yield ("routes", index, "cost"), "a cost needs limits.enforced_by: ratelimit_service"


def quotas_refill_by_the_minute(config: GatewayConfig) -> Iterator[Finding]:
    """Quota mode hands out whole requests a minute: of a slower rate it would give more than there is, or none."""
    if config.limits.enforced_by != "envoy":
        return
    for path, limit in _callers_numbers(config):
        if limit.rps * 60 < 1:
            yield (*path, "rps"), "under one request a minute (0.017) needs limits.enforced_by: ratelimit_service"


def _callers_numbers(config: GatewayConfig) -> Iterator[tuple[Path, Limit]]:
    """All numbers that hold for one caller, with their places."""
    every: list[tuple[Path, TierLimit]] = [
        (("limits", "tiers", tier), limit) for tier, limit in config.limits.tiers.items()
    ]
    every += [found for index, route in enumerate(config.routes) for found in _own_limits(index, route)]
    for path, limit in every:
        if isinstance(limit, Limit):
            yield path, limit


def _own_limits(index: int, route: Route) -> Iterator[tuple[Path, RouteLimit]]:
    """A route's own, with their places."""
    if route.limits:
        yield ("routes", index, "limits"), route.limits
    for tier, limit in route.tier_limits.items():
        yield ("routes", index, "tier_limits", tier), limit


def quotas_know_tiers_and_routes_alone(config: GatewayConfig) -> Iterator[Finding]:
    """A bucket inside Envoy is one caller's, and is asked before the answer."""
    if config.limits.enforced_by != "envoy":
        return
    if config.limits.exempt.cidrs or config.limits.exempt.callers:
        yield ("limits", "exempt"), "needs limits.enforced_by: ratelimit_service"
    if config.limits.shared:
        yield ("limits", "global"), "rules that callers share need limits.enforced_by: ratelimit_service"
    for index, route in enumerate(config.routes):
        if route.cost_from_response_header:
            yield ("routes", index, "cost_from_response_header"), "needs limits.enforced_by: ratelimit_service"
        if route.cost_from_response_status:
            yield ("routes", index, "cost_from_response_status"), "needs limits.enforced_by: ratelimit_service"
        for path, limit in _own_limits(index, route):
            if isinstance(limit, RuleLimit) and (limit.shadow or limit.counter):
                yield path, "shadow and counter need limits.enforced_by: ratelimit_service"
            if isinstance(limit, RuleLimit) and limit.by != "caller":
                yield (*path, "by"), "needs limits.enforced_by: ratelimit_service"


def shared_rules_are_somewhere(config: GatewayConfig) -> Iterator[Finding]:
    services = {service.name for service in config.services}
    routes = {route.name for route in config.routes}
    counters: dict[str, str] = {}
    for index, rule in enumerate(config.limits.shared):
        if rule.service is not None and rule.service not in services:
            yield ("limits", "global", index, "service"), f"no service named {rule.service!r}"
        for position, name in enumerate(rule.routes):
            if name not in routes:
                yield ("limits", "global", index, "routes", position), f"no route named {name!r}"
        other = counters.setdefault(rule.counter or rule.name, rule.name)
        if other != rule.name:
            yield ("limits", "global", index, "counter"), f"rule {other!r} counts there"


def costs_can_be_paid(config: GatewayConfig) -> Iterator[Finding]:
    """A cost over a whole limit would refuse every request, and tell each to come back."""
    for index, route in enumerate(config.routes):
        for where, limit in _charged(route, config):
            if route.cost > min(limit.burst, limit.rpm):
                most = f"burst {limit.burst}" if limit.burst <= limit.rpm else f"rpm {limit.rpm}"
                yield ("routes", index, "cost"), f"{route.cost} is more than {where} ever has ({most}): none could pass"


def _charged(route: Route, config: GatewayConfig) -> Iterator[tuple[str, Limit]]:
    """The limits that may refuse the route's requests, with their places."""
    limits = config.limits
    everyone = ["anonymous"] if route.auth == "none" else route.tiers or list(limits.tiers)
    tiers = [tier for tier in everyone if tier in limits.tiers and (route.auth != "required" or tier != "anonymous")]
    for tier in tiers:
        own, of_tier = route.tier_limits.get(tier) or route.limits, limits.tiers[tier]
        if own is None or (isinstance(own, RuleLimit) and own.shadow):
            if isinstance(of_tier, Limit):
                yield f"tier {tier!r}", of_tier
        elif tier in route.tier_limits and isinstance(own, Limit):
            yield f"tier {tier!r} on this route", own
    of_all = route.limits
    if isinstance(of_all, RuleLimit) and not of_all.shadow and set(tiers) - route.tier_limits.keys():
        yield "the route itself", of_all
    for rule in limits.shared:
        if not rule.shadow and (rule.service == route.service or route.name in rule.routes or _is_everywhere(rule)):
            yield f"the global rule {rule.name!r}", rule


def _is_everywhere(rule: GlobalLimit) -> bool:
    return rule.service is None and not rule.routes


def conditions_need_a_caller(config: GatewayConfig) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        asked = [key for key in ("tiers", "scopes", "claims", "providers") if getattr(route, key)]
        if route.auth == "none" and asked:
            yield ("routes", index, asked[0]), "a route with auth: none asks nobody who is calling"


def an_endpoint_list_speaks_one_scheme(config: GatewayConfig) -> Iterator[Finding]:
    for index, service in enumerate(config.services):
        schemes = [urlsplit(endpoint.url).scheme for endpoint in service.endpoints]
        for position, scheme in enumerate(schemes):
            if scheme != schemes[0]:
                yield ("services", index, "endpoints", position, "url"), "http and https do not mix in one service"


def only_steering_checks_have_a_rhythm(config: GatewayConfig) -> Iterator[Finding]:
    """The control plane asks when somebody looks; all else is for the checks that Envoy makes."""
    for index, service in enumerate(config.services):
        check = service.health_check
        if check is not None and not check.steer:
            for key in sorted(check.model_fields_set - {"path", "steer"}):
                yield ("services", index, "health_check", key), "holds only with steer: true"


def retries_can_happen(config: GatewayConfig) -> Iterator[Finding]:
    timeouts = {service.name: service.timeout_seconds for service in config.services}
    for index, service in enumerate(config.services):
        if service.retries is not None:
            yield from _unlike(service.retries, service.timeout_seconds, ("services", index, "retries"))
    for index, route in enumerate(config.routes):
        if route.retries is None:
            continue
        path: Path = ("routes", index, "retries")
        if route.retries.attempts and not set(IDEMPOTENT).intersection(route.match.methods):
            yield path, "POST and PATCH are never sent twice, and this route has no other method"
        timeout = route.timeout_seconds or timeouts.get(route.service)
        if timeout is not None:
            yield from _unlike(route.retries, timeout, path)


def _unlike(retries: Retries, timeout_seconds: float, path: Path) -> Iterator[Finding]:
    """What does not fit between retries and the time that all attempts have together."""
    once = retries.per_try_timeout_seconds
    if once is not None and once >= timeout_seconds:
        yield (*path, "per_try_timeout_seconds"), f"all attempts together have {timeout_seconds:g} s"
    for position, reason in enumerate(retries.on):
        if reason in retries.on[:position]:
            yield (*path, "on", position), f"{reason} is there twice"


def credentials_and_any_do_not_mix(config: GatewayConfig) -> Iterator[Finding]:
    """Fetch standard, section 3.2.5: with credentials, browsers take no `*` for an answer, but for a name."""
    own: list[tuple[Path, Cors | None]] = [(("routes", index, "cors"), r.cors) for index, r in enumerate(config.routes)]
    for path, cors in [(("cors",), config.cors), *own]:
        if cors is None or not cors.allow_credentials:
            continue
        if "*" in cors.allow_origins:
            yield (*path, "allow_origins"), "the origin * needs allow_credentials: false"
        if "*" in cors.expose_headers:
            yield (*path, "expose_headers"), "* needs allow_credentials: false; with credentials, name the headers"


def a_full_log_masks_nothing(config: GatewayConfig) -> Iterator[Finding]:
    if config.log.query == "full" and config.log.mask_parameters:
        yield ("log", "mask_parameters"), "query: full shows every parameter; masked is the default"


def one_way_to_trust_proxies(config: GatewayConfig) -> Iterator[Finding]:
    """Envoy takes one or the other, and a PROXY header is believed only where a trusted proxy sends it."""
    listener = config.listener
    if listener.trusted_cidrs and listener.trusted_hops:
        yield (
            ("listener", "trusted_cidrs"),
            "give either trusted_hops or trusted_cidrs: a proxy is known by one of them",
        )
    if listener.proxy_protocol and not listener.trusted_cidrs:
        yield ("listener", "proxy_protocol"), "name the proxies in trusted_cidrs: anybody could write a PROXY header"


def health_has_a_port_of_its_own(config: GatewayConfig) -> Iterator[Finding]:
    if config.listener.health_port == config.listener.port:
        yield ("listener", "health_port"), "is the port of the gateway itself, which serves health too"


def services_stay_outside(config: GatewayConfig, internal: frozenset[str]) -> Iterator[Finding]:
    """No route may lead to Envoy's admin, the control plane, the two services or the store."""
    ours = {_same_machine(*_host_and_port(f"//{address}")) for address in internal}
    for index, service in enumerate(config.services):
        for position, endpoint in enumerate(service.endpoints):
            if _same_machine(*_host_and_port(endpoint.url)) in ours:
                yield (
                    ("services", index, "endpoints", position, "url"),
                    "this address is one of the gateway's own parts",
                )


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _same_machine(host: str, port: int) -> tuple[str, int]:
    """The address in one spelling: whatever means this machine is `localhost`."""
    name = host.rstrip(".").lower()
    try:
        # inet_aton knows the old ways to write an address (127.1, 0x7f000001) that resolvers still take.
        number = ipaddress.ip_address(name if ":" in name else socket.inet_aton(name))
    except (OSError, ValueError):
        return "localhost" if name.endswith(".localhost") else name, port
    number = getattr(number, "ipv4_mapped", None) or number
    return "localhost" if number.is_loopback or number.is_unspecified else str(number), port


RULES: tuple[Rule, ...] = (
    names_are_unique,
    names_are_not_ours,
    routes_name_known_services,
    routes_do_not_overlap,
    routes_leave_health_alone,
    tiers_are_known,
    providers_are_known,
    keys_can_be_read,
    fetched_keys_have_a_source,
    quotas_count_requests,
    quotas_refill_by_the_minute,
    quotas_know_tiers_and_routes_alone,
    shared_rules_are_somewhere,
    costs_can_be_paid,
    conditions_need_a_caller,
    an_endpoint_list_speaks_one_scheme,
    only_steering_checks_have_a_rhythm,
    retries_can_happen,
    credentials_and_any_do_not_mix,
    a_full_log_masks_nothing,
    one_way_to_trust_proxies,
    health_has_a_port_of_its_own,
)
