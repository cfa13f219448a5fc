"""Identity while things change: keys rotate, the configuration changes, and the authz service is gone."""

from __future__ import annotations

import copy
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.identity_cases import (
    API_KEY,
    EDGE,
    ISSUER,
    JWT,
    MODES,
    NEW,
    OLD,
    SECRETS,
    KeySource,
    claims,
    compact,
    edwards,
    many,
    scheme,
)
from tests.support.gateway import Gateway, unique
from tests.support.waiting import eventually
from tests.support.wire import Connection

FLOOR_SECONDS = 1.0
"""Between two fetches that unknown kids ask for."""


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source() -> Iterator[KeySource]:
    with KeySource(EDGE) as running:
        yield running


@pytest.fixture(scope="module")
def several(mode: str, source: KeySource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Several providers, one of them with keys from `source`, and nothing revoked."""
    directory = tmp_path_factory.mktemp(mode) / "live"
    with Gateway(directory, document=wanted(mode, source), environment=SECRETS) as running:
        yield running


def wanted(mode: str, source: KeySource) -> dict[str, Any]:
    made = many(mode, source.uri)
    made["auth"]["revocations"] = {}
    return made


@contextmanager
def changed(gateway: Gateway, mode: str, source: KeySource, **auth: Any) -> Iterator[float]:
    """Another document for a while; the moment at which the operator was told that it holds."""
    made = wanted(mode, source)
    made["auth"] |= auth
    answer = gateway.put_config(made)
    assert answer.status_code == 200, answer.text
    try:
        yield time.monotonic()
    finally:
        assert gateway.put_config(wanted(mode, source)).status_code == 200
        assert eventually(lambda: status(gateway, platform()) == 200, seconds=1)


def status(gateway: Gateway, token: str | None, path: str = "/t/required", **more: Any) -> int:
    return gateway.ask(path, headers=scheme(token) if token else (), **more).status


def platform(**more: Any) -> str:
    return compact(JWT, claims(iss=ISSUER["platform"], **more))


class Load:
    """Keep-alive connections that ask all the time: what they got, and what they lost."""

    def __init__(self, address: str, make: Callable[[], str], connections: int = 4, path: str = "/t/required") -> None:
        self._address, self._make, self._path = address, make, path
        self._stop = threading.Event()
        self.answers: Counter[int] = Counter()
        self.lost = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]

    def _run(self) -> None:
        connection = Connection(self._address)
        while not self._stop.wait(0.005):  # a steady caller, that leaves the machine to others
            head = f"GET {self._path} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {self._make()}\r\n\r\n"
            connection.send(head.encode())
            answer = connection.receive()
            if answer is None:
                self.lost += 1
            else:
                self.answers[answer.status] += 1
            if answer is None or answer.value("connection") == "close":
                connection.__exit__()
                connection = Connection(self._address)
        connection.__exit__()

    def goes_on(self, more: int = 50) -> None:
        """Wait until so many further requests were answered."""
        wanted = self.answers.total() + more
        assert eventually(lambda: self.answers.total() >= wanted, 20), "nobody answers"

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


# -- keys


def wait_for_the_floor(source: KeySource) -> None:
    """Until an unknown kid may ask for a fetch again: the interval begins with the fetch that the source saw last."""
    assert eventually(lambda: not source.hits or time.monotonic() - source.hits[-1] > FLOOR_SECONDS)


def test_a_rotation_refuses_no_valid_token(several: Gateway, source: KeySource) -> None:
    """Under load, every token of a new key is believed from its publication on, and every one of the old key too."""
    wait_for_the_floor(source)
    signers = [EDGE]
    new = edwards(unique("rotated"))

    def make() -> str:
        signer = signers[time.monotonic_ns() % len(signers)]
        return signer.sign(claims(iss=ISSUER["edge"]))

    with Load(several.address, make) as load:
        load.goes_on()
        source.publish(EDGE, new)
        signers.append(new)
        load.goes_on(200)
    source.publish(EDGE)

    assert load.lost == 0
    assert set(load.answers) == {200}


def test_a_source_that_is_down_keeps_the_last_good_keys(several: Gateway, source: KeySource) -> None:
    """While it fails, known keys stay good, and nobody can tell of an unknown one: 503, not 401."""
    wait_for_the_floor(source)
    source.status = 500
    try:
        unknown = several.ask("/t/required", headers=scheme(edwards("unknown").sign(claims(iss=ISSUER["edge"]))))
        known = [status(several, EDGE.sign(claims(iss=ISSUER["edge"]))) for _ in range(5)]
    finally:
        source.status = 200

    assert (unknown.status, unknown.code, unknown.value("retry-after")) == (503, "SERVICE_UNAVAILABLE", "1")
    assert known == [200] * 5
    assert eventually(lambda: status(several, edwards("unknown").sign(claims(iss=ISSUER["edge"]))) == 401)
    assert status(several, EDGE.sign(claims(iss=ISSUER["edge"]))) == 200


def test_an_empty_key_set_is_a_fault_of_its_source(several: Gateway, source: KeySource) -> None:
    """A published set without keys locks nobody out."""
    wait_for_the_floor(source)
    source.publish()
    try:
        status(several, edwards("unknown").sign(claims(iss=ISSUER["edge"])))
        assert status(several, EDGE.sign(claims(iss=ISSUER["edge"]))) == 200
    finally:
        source.publish(EDGE)


def undecided(gateway: Gateway) -> int:
    """Requests that were decided too late, as authz and Envoy count them: on a busy machine each may be a 503."""
    authz, errors = (
        gateway.metrics("authz"),
        gateway.component("envoy")["admin"] + "/stats?filter=gateway.ext_authz.error",
    )
    late = [line for line in authz.splitlines() if line.startswith("mgw_authz_jwks_waits_given_up_total")]
    return sum(int(float(line.split()[-1])) for line in [*late, *gateway.read(errors).splitlines()])


def test_random_kids_cause_one_fetch_a_floor_interval(several: Gateway, source: KeySource) -> None:
    """Hundreds of kids that nobody has: each a 401, and at most one fetch a second, whoever asks at once."""
    wait_for_the_floor(source)
    stranger = edwards("stranger")
    late, began, before = undecided(several), time.monotonic(), len(source.hits)

    def make() -> str:
        return stranger.sign(claims(iss=ISSUER["edge"]), kid=unique("kid"))

    with Load(several.address, make, connections=6) as load:
        # Longer than one interval, so that a second fetch would be seen; and many kids.
        assert eventually(lambda: time.monotonic() - began > 1.6 * FLOOR_SECONDS and load.answers[401] > 300, 20)
    elapsed = time.monotonic() - began

    assert set(load.answers) <= {401, 503}
    assert load.answers[503] <= undecided(several) - late
    background = 1 + elapsed // 15  # the control plane's own look, in one of the modes
    assert 1 <= len(source.hits) - before <= elapsed // FLOOR_SECONDS + 1 + background


def test_a_secret_is_rotated_live(several: Gateway, mode: str, source: KeySource) -> None:
    """Both secrets are good while both are named; the one that is no longer named is refused within a second."""
    mine = {"uid": "u", "sub": None, "aud": "gateway", "iss": ISSUER["lenient"]}
    old, new = (signer.sign(claims(**mine)) for signer in (OLD, NEW))
    unnamed = compact({"alg": "HS512"}, claims(**mine), SECRETS["OLD_SECRET"])
    assert [status(several, token) for token in (old, new, unnamed)] == [200, 200, 200]

    providers = copy.deepcopy(wanted(mode, source)["auth"]["providers"])
    next(each for each in providers if each["name"] == "lenient")["secrets"].pop()
    with changed(several, mode, source, providers=providers) as since:
        # Envoy's workers learn of it one after the other.
        assert eventually(lambda: status(several, old) == 401, seconds=1)
        assert eventually(lambda: status(several, unnamed) == 401, seconds=1)
        assert status(several, new) == 200
        assert time.monotonic() - since < 2  # a second, and room for a busy machine
    assert eventually(lambda: status(several, old) == 200, seconds=1)


def test_another_secret_takes_over_live(several: Gateway, mode: str, source: KeySource) -> None:
    """A provider that is told to use another secret refuses what the one before has signed, within a second."""
    before = platform()
    after = compact(JWT, claims(iss=ISSUER["platform"]), SECRETS["NEW_SECRET"])
    assert [status(several, token) for token in (before, after)] == [200, 401]

    providers = copy.deepcopy(wanted(mode, source)["auth"]["providers"])
    next(each for each in providers if each["name"] == "platform")["secret"] = "${NEW_SECRET}"
    with changed(several, mode, source, providers=providers):
        assert eventually(lambda: status(several, after) == 200, seconds=1)
        assert eventually(lambda: status(several, before) == 401, seconds=1)


# -- the operator's changes


def test_a_revoked_token_is_refused_within_a_second(several: Gateway, mode: str, source: KeySource) -> None:
    """By its id, on kept-alive connections too; others of the same subject stay good."""
    who = unique()
    stolen, other = platform(sub=who, jti="stolen-1"), platform(sub=who, jti="stolen-2")
    assert [status(several, token) for token in (stolen, stolen, other)] == [200, 200, 200]

    with Connection(several.address) as connection:
        head = f"GET /t/required HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stolen}\r\n\r\n"

        def kept_alive() -> int:
            connection.send(head.encode())
            answer = connection.receive()
            assert answer is not None
            return answer.status

        assert kept_alive() == 200
        with changed(several, mode, source, revocations={"jti": ["stolen-1"]}) as since:
            assert eventually(lambda: kept_alive() == 401, seconds=1)
            assert status(several, stolen) == 401
            assert time.monotonic() - since < 2  # a second, and room for a busy machine
            assert status(several, other) == 200
            assert several.ask("/t/optional", headers=scheme(stolen)).status == 200
    assert eventually(lambda: status(several, stolen) == 200, seconds=1)


def test_a_revoked_subject_is_refused_within_a_second(several: Gateway, mode: str, source: KeySource) -> None:
    """Tokens from before the moment are refused, later ones and other providers' are not."""
    who, now = unique(), int(time.time())
    early, late = platform(sub=who, iat=now - 10), platform(sub=who, iat=now)
    elsewhere = EDGE.sign(claims(sub=who, iat=now - 10, iss=ISSUER["edge"]))
    assert [status(several, token) for token in (early, late, elsewhere)] == [200, 200, 200]

    revoked = [{"provider": "platform", "subject": who, "issued_before": now}]
    with changed(several, mode, source, revocations={"subjects": revoked}) as since:
        assert eventually(lambda: status(several, early) == 401, seconds=1)
        assert time.monotonic() - since < 2  # a second, and room for a busy machine
        assert [status(several, token) for token in (late, elsewhere)] == [200, 200]


def test_an_api_key_comes_and_goes_within_a_second(several: Gateway, mode: str, source: KeySource) -> None:
    """A key that is taken out of the configuration is refused, and one that is put in is believed."""

    def with_key() -> int:
        return several.ask("/t/required", headers=[("X-API-Key", API_KEY)]).status

    assert with_key() == 200
    with changed(several, mode, source, api_keys=[]) as since:
        assert eventually(lambda: with_key() == 401, seconds=1)
        assert time.monotonic() - since < 2  # a second, and room for a busy machine
    began = time.monotonic()
    assert eventually(lambda: with_key() == 200, seconds=1)
    assert time.monotonic() - began < 1


def test_switching_who_verifies_loses_no_request(several: Gateway, mode: str, source: KeySource) -> None:
    """Back and forth under load with keep-alive: every request is answered, and with the same answer."""
    modes = ["envoy", "authz_service"] if mode == "authz_service" else ["authz_service", "envoy"]
    token = platform()
    with Load(several.address, lambda: token) as good, Load(several.address, lambda: "a.b.c", 2) as bad:
        for each in modes * 2:
            good.goes_on()
            assert several.put_config(wanted(each, source)).status_code == 200
        good.goes_on()
        bad.goes_on()

    assert (good.lost, bad.lost) == (0, 0)
    assert (set(good.answers), set(bad.answers)) == ({200}, {401})


# -- the authz service is gone


def test_authz_gone(several: Gateway, mode: str) -> None:
    """What needs authz is 503 within 250 ms, nothing of it reaches a service, and the rest does not notice."""
    token = platform()
    expired, key = platform(exp=1), [("X-API-Key", API_KEY)]
    scoped = scheme(platform(scope="read write"))
    assert status(several, token) == 200
    several.kill("authz")
    before = several.hits()["discovery"]

    refused = [several.ask("/t/required", headers=headers) for headers in (scheme(expired), key)]
    refused += [several.ask("/t/optional", headers=headers) for headers in (scheme(expired), key)]
    refused += [several.ask("/t/scoped", headers=scoped), several.ask("/t/keys-only", headers=scheme(token))]
    fresh = [several.ask("/t/required", headers=scheme(platform())), several.ask("/t/optional")]
    reached = several.hits()["discovery"] - before
    assert status(several, None, "/t/required") == 401  # nobody need be asked
    if mode == "envoy":
        assert [answer.status for answer in fresh] == [200, 200]
        assert reached == 2
    else:
        refused += fresh
        assert reached == 0
    assert {(answer.status, answer.code) for answer in refused} == {(503, "SERVICE_UNAVAILABLE")}
    assert all(int(answer.value("retry-after") or 0) >= 1 for answer in refused)
    assert max(answer.seconds for answer in refused) < 0.25
    assert statistics.median(answer.seconds for answer in refused) < 0.05
    assert (
        status(several, None, "/t/open")
        == status(several, expired, "/t/open")
        == status(several, None, "/health/live")
        == 200
    )

    several.revive("authz")
    began = time.monotonic()
    assert eventually(lambda: status(several, platform()) == 200, seconds=1)
    assert eventually(lambda: [status(several, None), status(several, expired)] == [401, 401], seconds=1)
    assert several.ask("/t/required", headers=key).status == 200
    assert time.monotonic() - began < 1
