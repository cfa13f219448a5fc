"""Which credentials a service gets: tokens by default, and API keys only if the document says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.identity_cases import API_KEY, JWT, MODES, claims, compact, document, scheme
from tests.support.gateway import Echo, Gateway, a_route, unique
from tests.support.waiting import eventually

KEY = ("X-API-Key", API_KEY)
WORKERS_MET = 20
"""So many connections have met every worker."""
PATHS = ("/t/required", "/t/optional", "/t/open")


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def gateway(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp(mode) / "credentials", document=document(mode)) as running:
        yield running


@pytest.fixture
def with_auth(gateway: Gateway, mode: str) -> Any:
    """Makes the gateway's `auth` what it was, but for these keys."""

    def change(**auth: Any) -> Gateway:
        made, probe = document(mode), unique("probe")
        made["auth"] |= auth
        made["routes"].append(a_route(probe, "discovery", "none"))
        answer = gateway.put_config(made)
        assert answer.status_code == 200, answer.text
        # Envoy's workers learn of it one after the other.
        assert eventually(lambda: all(gateway.ask(f"/t/{probe}").status == 200 for _ in range(WORKERS_MET)))
        return gateway

    return change


def received(gateway: Gateway, path: str, *headers: tuple[str, str]) -> Echo:
    answer = gateway.ask(path, headers=headers)
    assert answer.status == 200, answer.body
    return Echo.of(answer)


@pytest.mark.parametrize("path", PATHS)
def test_an_api_key_stays_here(with_auth: Any, path: str) -> None:
    """However its name is written, and however often it is sent; the service is told whose it is."""
    gateway = with_auth()
    for sent in ([KEY], [("x-API-KEY", API_KEY)], [("X-Other", "kept"), KEY]):
        echo = received(gateway, path, *sent)
        assert API_KEY not in str(echo.headers)
        assert "x-api-key" not in echo.names()
        assert echo.value("x-user-issuer") == (None if path == "/t/open" else "apikey")
        assert echo.values("x-other") == ["kept"][: len(sent) - 1]


def test_a_key_that_is_not_looked_at_stays_here_too(with_auth: Any) -> None:
    """Beside a token, wrong on an optional route, or there twice."""
    gateway = with_auth()
    token = scheme(compact(JWT, claims()))[0]
    for path, headers in (
        ("/t/required", [token, KEY]),
        ("/t/required", [token, KEY]),  # remembered
        ("/t/optional", [("X-API-Key", "wrong")]),
        ("/t/optional", [KEY, KEY]),
    ):
        assert "x-api-key" not in received(gateway, path, *headers).names()


@pytest.mark.parametrize("path", PATHS)
def test_a_key_is_passed_on_if_the_document_says_so(with_auth: Any, path: str) -> None:
    """To services that were there before the gateway."""
    gateway = with_auth(forward_credentials={"api_key": True})

    assert received(gateway, path, KEY).values("x-api-key") == [API_KEY]


@pytest.mark.parametrize("path", PATHS)
def test_a_token_is_passed_on_unless_the_document_says_no(with_auth: Any, path: str) -> None:
    """As it came; and any other scheme with it."""
    token = scheme(compact(JWT, claims()))[0]
    basic = ("Authorization", "Basic dTpw")
    others = [basic] if path != "/t/required" else []
    gateway = with_auth()
    for header in (token, token, *others):
        assert received(gateway, path, header).values("authorization") == [header[1]]

    with_auth(forward_credentials={"authorization": False})
    for header in (token, token, *others):
        assert received(gateway, path, header).values("authorization") == []


def test_the_headers_name_is_the_documents(with_auth: Any) -> None:
    """Another name for the credential; the usual one is then a header like any other."""
    gateway = with_auth(api_key_header="X-Partner-Key")

    echo = received(gateway, "/t/required", ("X-Partner-Key", API_KEY), ("X-API-Key", "the service's own"))
    assert (echo.value("x-user-issuer"), echo.value("x-api-key")) == ("apikey", "the service's own")
    assert "x-partner-key" not in echo.names()
    assert gateway.ask("/t/required", headers=[KEY]).status == 401


def test_without_api_keys_the_header_is_the_services(with_auth: Any) -> None:
    """The gateway does not know it as a credential."""
    gateway = with_auth(api_keys=[])

    assert received(gateway, "/t/optional", KEY).values("x-api-key") == [API_KEY]
