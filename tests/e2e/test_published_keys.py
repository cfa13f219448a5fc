"""Keys at a `jwks_uri`: how long a withdrawn one lives, how the source is asked, and what is said when it cannot be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.identity_cases import MODES, Signer, claims, document, edwards, scheme
from tests.support.authority import an_authority
from tests.support.gateway import Gateway
from tests.support.key_source import KeySource, serving
from tests.support.waiting import during, eventually
from tests.support.wire import Connection

REFRESH_SECONDS = 1
OLD, NEW = edwards("old"), edwards("new")
TURNS = 4


class Published(KeySource):
    """A source that knows its versions (RFC 9110, section 8.8.3), and counts who had the one it still has."""

    def __init__(self, *signers: Signer, authority: bytes = b"") -> None:
        super().__init__(authority=authority, answers=_unless_known)
        self.unchanged = 0
        self.show(*signers)

    def show(self, *signers: Signer) -> None:
        self.publish(*(signer.jwk for signer in signers))

    def publish(self, *jwks: dict[str, Any]) -> None:
        super().publish(*jwks)
        self.headers["etag"] = f'"{hash(self.body)}"'


def _unless_known(source: KeySource, handler: BaseHTTPRequestHandler) -> bool:
    assert isinstance(source, Published)
    if source.status != 200 or handler.headers["if-none-match"] != source.headers["etag"]:
        return False
    source.unchanged += 1
    handler.send_response(304)
    handler.end_headers()
    return True


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source() -> Iterator[Published]:
    with serving(Published(OLD)) as running:
        assert isinstance(running, Published)
        yield running


@pytest.fixture
def shown(source: Published, gateway: Gateway) -> Published:
    """The source as it was, and the gateway knows it."""
    source.status, source.answers = 200, _unless_known
    source.show(OLD)
    assert eventually(lambda: status(gateway, OLD) == 200, 10)
    return source


@pytest.fixture(scope="module")
def gateway(mode: str, source: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A provider whose keys are fetched every second; decisions would be kept for a minute."""
    with Gateway(tmp_path_factory.mktemp(mode) / "keys", document=wanted(mode, source.url)) as running:
        yield running


def wanted(mode: str, uri: str, **more: Any) -> dict[str, Any]:
    provider = {"name": "idp", "algorithms": ["EdDSA"], "jwks_uri": uri, "jwks_refresh_seconds": REFRESH_SECONDS}
    made = document(mode, [provider | more])
    made["auth"]["decision_cache"] = {"seconds": 60}
    return made


def status(gateway: Gateway, signer: Signer) -> int:
    return gateway.ask("/t/required", headers=scheme(signer.sign(claims()))).status


def logged(gateway: Gateway, part: str, event: str) -> list[dict[str, Any]]:
    lines = Path(gateway.component(part)["log"]).read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and f'"{event}"' in line]
    return [line for line in found if line["event"] == event]


def consumers(mode: str) -> dict[str, str]:
    """Who asks the source, and how each calls a fetch that failed."""
    return {"authz": "jwks.fetch_failed"} | ({"controlplane": "keys.not_fetched"} if mode == "envoy" else {})


class KeptAlive:
    """One connection for many requests, and another one once the gateway closes it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection = Connection(address)

    def status(self, token: str) -> int:
        head = f"GET /t/required HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {token}\r\n\r\n"
        while True:
            self._connection.send(head.encode())
            answer = self._connection.receive()
            if answer is not None:
                return answer.status
            self._connection = Connection(self._address)


def test_a_withdrawn_key_is_refused_in_time(gateway: Gateway, shown: Published) -> None:
    """Within `jwks_refresh_seconds` and 5 s, on old connections and new ones, for tokens in use all the while."""
    token = OLD.sign(claims())
    kept = KeptAlive(gateway.address)

    def in_use() -> tuple[int, int]:
        """What a kept-alive connection and a new one get."""
        return kept.status(token), gateway.ask("/t/required", headers=scheme(token)).status

    assert [in_use() for _ in range(20)] == [(200, 200)] * 20
    shown.show(NEW)
    withdrawn = time.monotonic()
    assert eventually(lambda: in_use() == (401, 401), REFRESH_SECONDS + 5), "it is still believed"
    assert time.monotonic() - withdrawn < REFRESH_SECONDS + 5
    # An unknown kid makes authz ask the source. On a busy machine it may not be told in time, which is a 503.
    assert {each for _ in during(1) for each in in_use()} <= {401, 503}
    assert status(gateway, NEW) == 200


def test_what_has_not_changed_is_not_sent_again(gateway: Gateway, shown: Published, mode: str) -> None:
    """Each consumer asks with the version that it has; tokens are good all the while."""
    before = shown.unchanged

    assert eventually(lambda: shown.unchanged >= before + 2 * len(consumers(mode)), 10)
    assert status(gateway, OLD) == 200


def test_an_order_that_alternates_rebuilds_nothing(gateway: Gateway, shown: Published, mode: str) -> None:
    """Nobody takes it for another set, Envoy gets no new listener, and what is not used is logged once."""
    keys = [OLD.jwk, NEW.jwk, {"kty": "EC", "kid": "for-encryption", "use": "enc"}]
    shown.publish(*keys)
    calls, everybody = len(shown.calls), len(consumers(mode))
    assert eventually(lambda: len(shown.calls) >= calls + 3 * everybody, 15)
    assert status(gateway, NEW) == 200
    before = rebuilt(gateway)

    def turn(source: KeySource, _: BaseHTTPRequestHandler) -> bool:
        keys.reverse()
        source.publish(*keys)
        return False

    calls, shown.answers = len(shown.calls), turn
    assert eventually(lambda: len(shown.calls) >= calls + TURNS * everybody, 15)
    assert status(gateway, NEW) == 200
    assert rebuilt(gateway) == before
    assert before["ignored"] == 1


def rebuilt(gateway: Gateway) -> dict[str, Any]:
    """What would have changed if somebody had taken a key set for another one."""
    admin = gateway.component("envoy")["admin"]
    listeners = gateway.read(
        f"{admin}/stats?filter=^listener_manager.lds.version_text|^listener_manager.lds.update_success"
    )
    return {
        "swaps": len(logged(gateway, "authz", "jwks.swapped")),
        "ignored": len(logged(gateway, "authz", "jwks.key_ignored")),
        "listeners": listeners,
    }


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_member_that_says_nothing_is_as_absent(gateway: Gateway, shown: Published, nothing: str | None) -> None:
    """A key with `alg: null`, `use: null` and the like verifies."""
    signer = edwards(f"null-{nothing}")
    shown.publish(signer.jwk | {"alg": nothing, "use": nothing, "key_ops": nothing, "x5c": nothing})

    assert eventually(lambda: status(gateway, signer) == 200, 10)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(302, "status 302, a redirect, and redirects are not followed"), (500, "status 500"), (403, "status 403")],
)
def test_a_source_that_does_not_publish(gateway: Gateway, shown: Published, mode: str, answer: int, why: str) -> None:
    """Each consumer says why; the keys that are known stay good."""
    shown.headers["location"], shown.status = shown.url, answer

    for part, event in consumers(mode).items():
        assert eventually(lambda part=part, event=event: says(gateway, part, event, why), 10), part  # type: ignore[misc]
    assert status(gateway, OLD) == 200


def says(gateway: Gateway, part: str, event: str, why: str) -> bool:
    return any(line["error"].endswith(why) for line in logged(gateway, part, event))


def test_a_source_with_a_private_authority(gateway: Gateway, mode: str, source: Published, tmp_path: Path) -> None:
    """It is believed with `ca_file`; without it the failure says that it is the certificate."""
    authority, signer = an_authority(), edwards("private")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.certificate)
    private = Published(signer, authority=authority.certificate)
    with serving(private, authority.server_context("127.0.0.1")):
        assert gateway.put_config(wanted(mode, private.url)).status_code == 200
        why = "TLS: the certificate is not trusted: unable to get local issuer certificate"
        for part, event in consumers(mode).items():
            assert eventually(lambda part=part, event=event: says(gateway, part, event, why), 10), part  # type: ignore[misc]

        assert gateway.put_config(wanted(mode, private.url, ca_file=str(ca_file))).status_code == 200
        assert eventually(lambda: status(gateway, signer) == 200, 10)
        assert eventually(lambda: private.unchanged >= 2 * len(consumers(mode)), 10)
    assert gateway.put_config(wanted(mode, source.url)).status_code == 200
