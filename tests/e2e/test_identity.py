"""Contract 2: who is calling. One table through real Envoy, with the same answers whoever verifies."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.identity_cases import (
    API_KEY,
    BAD,
    DEAR_KEY,
    EDGE,
    FORBIDDEN,
    FORGED,
    ISSUER,
    JWT,
    LENIENT,
    MODES,
    NEW,
    NOBODY,
    PEM,
    PROVIDERS,
    RSA,
    SECRETS,
    STOLEN,
    TOKENS,
    Caller,
    Case,
    Forger,
    Headers,
    KeySource,
    claims,
    compact,
    document,
    many,
    scheme,
)
from tests.support.gateway import Echo, Gateway, unique
from tests.support.waiting import during, eventually
from tests.support.wire import Answer, Connection

ANONYMOUS = ("", "anonymous")


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def one(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shipped provider: HS256 with JWT_SECRET, no issuer."""
    with Gateway(tmp_path_factory.mktemp(mode) / "one", document=document(mode)) as running:
        yield running


@pytest.fixture(scope="module")
def several(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Seven providers with a kind of key each."""
    with KeySource(EDGE) as source:
        directory = tmp_path_factory.mktemp(mode) / "several"
        with Gateway(directory, document=many(mode, source.uri), environment=SECRETS) as running:
            if mode == "envoy":
                eventually(lambda: not asks_authz(running, EDGE.sign(claims(iss=ISSUER["edge"]))))
            yield running


def asks_authz(gateway: Gateway, token: str, path: str = "/t/required") -> bool:
    """Whether a request with this token, which must be believed, made Envoy ask the authz service."""
    before = decisions(gateway)
    assert gateway.ask(path, headers=scheme(token)).status == 200
    return decisions(gateway) != before


def decisions(gateway: Gateway) -> float:
    """How many requests authz has decided."""
    lines = re.findall(r"^mgw_authz_decisions_total\{.*\} (\S+)$", gateway.metrics("authz"), re.MULTILINE)
    return sum(map(float, lines))


def caller(answer: Answer) -> Caller:
    """Whom the upstream was told of, each header at most once."""
    echo = Echo.of(answer)
    ours = ("x-user-id", "x-user-tier", "x-user-issuer")
    assert [len(echo.values(name)) for name in ours] in ([0, 0, 0], [1, 1, 1])
    assert not any(re.match(r"x[-_](user[-_](id|tier|issuer)|mgw[-_])", name) for name in echo.names() - set(ours))
    who = (echo.value("x-user-id") or "").encode("latin-1").decode()
    return who, echo.value("x-user-tier") or "anonymous"


def refusal(answer: Answer) -> tuple[int, str | None, str | None]:
    assert answer.value("content-type") == "application/json"
    assert set(answer.json()["error"]) == {"code", "message"}
    return answer.status, answer.code, answer.value("www-authenticate")


REFUSALS = {
    NOBODY: (401, "UNAUTHORIZED", "Bearer"),
    BAD: (401, "AUTH_FAILED", 'Bearer error="invalid_token"'),
}


def judge(gateway: Gateway, case: Case, refusing: str, lenient: str) -> None:
    """Send a case to its own route; else to one that requires a caller and to one that does not."""
    headers, outcome = case.makes()
    if case.route:
        check(gateway, f"/t/{case.route}", headers, outcome)
        return
    check(gateway, refusing, headers, outcome)
    check(gateway, lenient, headers, ANONYMOUS if outcome in (NOBODY, BAD) else outcome)


def check(gateway: Gateway, path: str, headers: Headers, outcome: Caller | str) -> None:
    """Twice: what was decided a moment ago is decided the same way again."""
    for _ in range(2):
        answer = gateway.ask(path, headers=headers)
        expected = outcome if isinstance(outcome, str) else outcome[1]
        if expected in REFUSALS:
            assert refusal(answer) == REFUSALS[expected]
        elif expected == FORBIDDEN:
            assert refusal(answer)[:2] == (403, "FORBIDDEN")
        else:
            assert answer.status == 200, answer.body
            assert caller(answer) == outcome


@pytest.mark.parametrize("case", TOKENS, ids=str)
def test_one_provider(one: Gateway, case: Case) -> None:
    """A caller is believed, taken for nobody, or refused as the contract says, the same in both modes."""
    judge(one, case, "/t/required", "/t/optional")


@pytest.mark.parametrize("case", PROVIDERS, ids=str)
def test_several_providers(several: Gateway, case: Case) -> None:
    """A token is believed by its own provider's rules only: keys, algorithms, issuer, audiences, claims, leeway."""
    judge(several, case, "/t/required", "/t/optional")


def vouched(answer: Answer) -> tuple[str | None, ...]:
    """Whom the upstream was told of, and by whom."""
    assert answer.status == 200, answer.body
    echo = Echo.of(answer)
    return tuple(echo.value(name) for name in ("x-user-id", "x-user-issuer"))


@pytest.mark.parametrize("path", ["/t/required", "/t/strict-optional"])
def test_two_issuers_have_a_user_of_one_name(several: Gateway, path: str) -> None:
    """The upstream and the log can tell them apart, on every way that a decision can take."""
    who = unique("alice")
    tokens = {
        "platform": compact(JWT, claims(sub=who, iss=ISSUER["platform"])),
        "idp": RSA.sign(claims(sub=who, iss=ISSUER["idp"])),
        "edge": EDGE.sign(claims(sub=who, iss=ISSUER["edge"])),
    }
    for provider, token in [*tokens.items(), *tokens.items()]:  # asked about, then remembered
        plain = several.ask(path, headers=scheme(token))
        told = several.ask(f"{path}?a=1", headers=[*scheme(token), ("X-User-Issuer", "apikey")])

        assert vouched(plain) == vouched(told) == (who, provider)
        for answer in (plain, told):
            line = several.log_line(answer.value("x-request-id") or "")
            assert (line["user_id"], line["provider"]) == (who, provider)


def test_an_api_key_vouches_for_its_caller(one: Gateway) -> None:
    """As `apikey`, which no provider can be called."""
    answer = one.ask("/t/required", headers=[("X-API-Key", API_KEY), ("X-User-Issuer", "platform")])

    assert vouched(answer) == ("key:partner", "apikey")
    assert one.log_line(answer.value("x-request-id") or "")["provider"] == "apikey"


@pytest.mark.parametrize(
    ("path", "status"), [("/t/optional", 200), ("/t/optional?a=1", 200), ("/t/required", 401), ("/t/../a", 404)]
)
def test_nobody_vouches_for_nobody(one: Gateway, path: str, status: int) -> None:
    """Whatever a client says of itself, the upstream and the log hear nothing of it."""
    answer = one.ask(path, headers=[("X-User-Issuer", "platform"), ("x_user_issuer", "platform")])

    assert answer.status == status
    assert "provider" not in one.log_line(answer.value("x-request-id") or "")
    if status == 200:
        assert vouched(answer) == (None, None)


def test_who_is_asked(mode: str, one: Gateway, several: Gateway) -> None:
    """Envoy decides plain tokens and plain absence by itself where it verifies; by default authz is always asked."""
    plain = claims(roles=["a", "b"], nested={"a": [1, 2]}, email="a@b.test")
    tokens = [(one, compact(JWT, plain))]
    tokens += [(several, case.makes()[0][0][1].partition(" ")[2]) for case in PROVIDERS if case.name in SETTLED]
    before = decisions(one)
    assert one.ask("/t/optional").status == 200
    asked = [decisions(one) != before, *(asks_authz(gateway, token) for gateway, token in tokens)]

    assert len(asked) > len(SETTLED)
    assert set(asked) == {mode != "envoy"}


SETTLED = {f"{name} verifies" for name in ("idp", "pem", "curves", "edge", "strict")} | {
    "the new secret",
    "the old secret",
}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/t/scoped", {"claims": {"scope": "read write"}}),
        ("/t/required", {"more": [("X-API-Key", "x")]}),
        ("/t/required", {"claims": {"sub": "jürgen"}}),
        ("/t/required", {"claims": {"x": None, "nested": {"y": None}}}),
    ],
)
def test_what_envoy_leaves_to_authz(one: Gateway, path: str, headers: dict[str, object]) -> None:
    """Scopes, API keys and what Envoy cannot read beyond doubt are always decided by authz."""
    before = decisions(one)
    more = headers.get("claims", {})
    assert isinstance(more, dict)
    extra = headers.get("more", [])
    assert isinstance(extra, list)
    token = compact(JWT, claims() | more)

    assert one.ask(path, headers=[*scheme(token), *extra]).status == 200
    assert decisions(one) == before + 1


@pytest.mark.parametrize("parameter", ["access_token", "token", "jwt", "authorization"])
def test_a_token_in_the_query_is_none(one: Gateway, parameter: str) -> None:
    """Only the Authorization header carries a token: one in the query neither identifies nor rescues a bad one."""
    token = compact(JWT, claims())
    forged = token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBA")

    assert refusal(one.ask(f"/t/required?{parameter}={token}")) == REFUSALS[NOBODY]
    assert refusal(one.ask(f"/t/required?{parameter}={token}", headers=scheme(forged))) == REFUSALS[BAD]
    assert caller(one.ask(f"/t/optional?{parameter}={token}", headers=scheme(forged))) == ANONYMOUS


@pytest.mark.parametrize("field", ["jku", "x5u"])
def test_nobody_fetches_what_a_token_points_at(several: Gateway, field: str) -> None:
    """The forger's own key set is there, and no part of the gateway ever asks for it."""
    with KeySource(FORGED) as source:
        forged = Forger(FORGED, {field: source.uri})
        for provider in ("pem", "strict", "edge"):
            token = forged.sign(claims(iss=ISSUER[provider]))
            assert refusal(several.ask("/t/required", headers=scheme(token))) == REFUSALS[BAD]
        honest = Forger(PEM, {field: source.uri}).sign(claims(iss=ISSUER["pem"]))
        assert several.ask("/t/required", headers=scheme(honest)).status == 200

    assert source.hits == []


def logged(gateway: Gateway, path: str, headers: Headers) -> tuple[Answer, dict[str, object]]:
    """The answer, and what its line in the log says of the caller and why."""
    mine = unique("logged")
    answer = gateway.ask(path, headers=[*headers, ("X-Request-ID", mine)])
    line = gateway.log_line(mine)
    told = ("user_id", "tier", "provider", "error", "reason", "missing")
    return answer, {name: line[name] for name in told if name in line}


FORGED_KEY = [("X-API-Key", "a-guess")]
NOBODYS: list[tuple[str, str, Callable[[], Headers]]] = [
    ("no_token", "required", list),
    ("no_token", "required", lambda: [("Authorization", "Basic QQ==")]),
    ("expired", "required", lambda: scheme(compact(JWT, claims(exp=int(time.time()) - 5)))),
    ("not_yet_valid", "required", lambda: scheme(compact(JWT, claims(nbf=int(time.time()) + 60)))),
    ("signature", "required", lambda: scheme(compact(JWT, claims(), "another secret"))),
    ("malformed", "required", lambda: scheme("opaque")),
    ("header_refused", "required", lambda: scheme(compact(JWT | {"crit": ["exp"]}, claims()))),
    ("algorithm", "required", lambda: scheme(compact({"alg": "none"}, claims()))),
    ("subject", "required", lambda: scheme(compact(JWT, claims(sub="")))),
    ("header_ambiguous", "required", lambda: scheme(compact(JWT, claims())) * 2),
    ("wrong_api_key", "required", lambda: FORGED_KEY),
    ("wrong_api_key", "scoped-optional", lambda: FORGED_KEY),
    ("no_token", "scoped-optional", list),
    ("expired", "pro-optional", lambda: scheme(compact(JWT, claims(exp=int(time.time()) - 5)))),
]


@pytest.mark.parametrize(("reason", "route", "headers"), NOBODYS)
def test_why_a_401(one: Gateway, reason: str, route: str, headers: Callable[[], Headers]) -> None:
    """The log says why, and names nobody: who could not be verified is anonymous."""
    answer, line = logged(one, f"/t/{route}", headers())

    code = "UNAUTHORIZED" if reason == "no_token" else "AUTH_FAILED"
    assert (answer.status, answer.code) == (401, code)
    assert line == {"user_id": "anonymous", "tier": "anonymous", "error": code, "reason": reason}


@pytest.mark.parametrize(
    ("reason", "provider", "more"),
    [
        ("wrong_audience", "lenient", LENIENT | {"aud": "x"}),
        ("wrong_audience", "lenient", LENIENT | {"aud": None}),
        ("unknown_issuer", "platform", {"iss": "https://who.test/"}),
        ("revoked", "platform", {"jti": STOLEN}),
    ],
)
def test_why_a_401_of_several_providers(several: Gateway, reason: str, provider: str, more: dict[str, object]) -> None:
    """The provider's own rules have reasons of their own."""
    body = claims(**{"iss": ISSUER[provider], **more})
    token = NEW.sign(body) if provider == "lenient" else compact(JWT, body)

    answer, line = logged(several, "/t/required", scheme(token))

    assert (answer.status, line["reason"], line["user_id"]) == (401, reason, "anonymous")


FORBIDDEN_FOR: list[tuple[str, str, dict[str, object], str | None, str | None]] = [
    ("pro", "tier_not_allowed", {"tier": "free"}, None, None),
    ("pro-optional", "tier_not_allowed", {"tier": "free"}, None, None),
    ("scoped", "scope_missing", {"scope": "read other"}, "write", "read write"),
    ("scoped", "scope_missing", {}, "read write", "read write"),
    ("scoped-optional", "scope_missing", {}, "read", "read"),
    ("claimed", "claim_missing", {"plan": "gold", "level": 3, "verified": 1}, "verified", None),
    ("claimed", "claim_missing", {"level": 4, "verified": True}, "level plan", None),
]


@pytest.mark.parametrize(("route", "reason", "more", "missing", "scopes"), FORBIDDEN_FOR)
def test_why_a_403(
    one: Gateway, route: str, reason: str, more: dict[str, object], missing: str | None, scopes: str | None
) -> None:
    """The log names the caller, its tier and what it lacks; a client hears of scopes alone, as RFC 6750 says."""
    body = claims(**more)
    spoofed = [("X-User-ID", "eve"), ("X-User-Tier", "enterprise"), ("X-User-Issuer", "apikey")]
    headers = [*scheme(compact(JWT, body)), *spoofed]
    who = {"user_id": body["sub"], "tier": body["tier"], "provider": "platform"}
    expected = who | {"error": "FORBIDDEN", "reason": reason}

    answer, line = logged(one, f"/t/{route}", headers)

    assert refusal(answer) == (403, "FORBIDDEN", scopes and f'Bearer error="insufficient_scope", scope="{scopes}"')
    assert line == expected | ({"missing": missing} if missing else {})
    assert answer.json()["error"]["message"] == "Access denied"


def test_why_a_403_of_an_api_key(one: Gateway) -> None:
    """A key's caller is named in the same way."""
    answer, line = logged(one, "/t/scoped", [("X-API-Key", DEAR_KEY)])

    assert (answer.status, line["user_id"], line["tier"], line["provider"]) == (403, "key:dear", "pro", "apikey")
    assert (line["reason"], line["missing"]) == ("scope_missing", "read write")


def test_a_wrong_api_key_says_so(one: Gateway) -> None:
    """It is no token, so nothing is said of one; the key is told to nobody."""
    answer, line = logged(one, "/t/required", [("X-API-Key", "a-guess-of-mine")])

    assert answer.json()["error"] == {"code": "AUTH_FAILED", "message": "Invalid API key"}
    assert "a-guess-of-mine" not in json.dumps(line) + answer.body.decode()
    assert one.ask("/t/required", headers=scheme("x")).json()["error"]["message"] == "Invalid or expired token"


def test_what_is_served_needs_no_reason(one: Gateway) -> None:
    """A caller with a bad token is served as nobody where that is allowed, and the line has no reason."""
    answer, line = logged(one, "/t/optional?q=1", scheme("x"))

    assert answer.status == 200
    assert line == {"user_id": "anonymous", "tier": "anonymous"}


IDENTITY = ("X-Mgw-Identity", "x_mgw_identity", "X-MGW_Identity", "x-mgw-identity")
CLAIMED = ("X-Mgw-Caller", "X-User-Id", "X-User-Tier", "X-User-Issuer")


@pytest.mark.parametrize("word", ["known", "unverified"])
@pytest.mark.parametrize("name", IDENTITY)
def test_a_client_cannot_say_that_it_is_known(one: Gateway, name: str, word: str) -> None:
    """The header for which authz is not asked is nobody's to send: who has no token, or a forged one, is refused."""
    token = compact(JWT, claims())
    forged = token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBA")
    claimed = [(name, word), *((header, "pro platform/u1") for header in CLAIMED)]

    assert refusal(one.ask("/t/required", headers=claimed)) == REFUSALS[NOBODY]
    assert refusal(one.ask("/t/required", headers=[*claimed, *scheme(forged)])) == REFUSALS[BAD]
    assert caller(one.ask("/t/optional", headers=claimed)) == ANONYMOUS


def test_one_token_again_and_again(one: Gateway) -> None:
    """A token that was believed is refused from the second in which it expires, however often it was seen."""
    body = claims(exp=int(time.time()) + 2)
    token = compact(JWT, body)
    seen: list[tuple[float, int]] = []
    for _ in during(body["exp"] + 0.3 - time.time()):
        began = time.time()
        status = one.ask("/t/required", headers=scheme(token)).status
        if time.time() < body["exp"] or began >= body["exp"]:
            seen.append((began - body["exp"], status))

    assert {status for since, status in seen if since < 0} == {200}
    assert {status for since, status in seen if since >= 0} == {401}


def test_no_single_changed_character_is_believed(one: Gateway) -> None:
    """Whichever one character of a good token is another one, the answer is never 200."""
    token = compact(JWT, claims())
    connection = Connection(one.address)

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(token) - 1), st.integers(0x20, 0xFF).filter(lambda code: code != 0x7F))
    def change(at: int, code: int) -> None:
        nonlocal connection
        changed = token[:at] + chr(code) + token[at + 1 :]
        head = f"GET /t/required HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {changed}\r\n\r\n"
        connection.send(head.encode("latin-1"))
        answer = connection.receive()
        assert answer is not None
        assert answer.status == (200 if changed == token else 401)

    with connection:
        change()


def test_secrets_stay_inside(one: Gateway, several: Gateway) -> None:
    """No secret, in whichever spelling, is in a log, an answer of the operator API, or Envoy's own dump."""
    for gateway in (one, several):
        places = {f"log of {part['name']}": Path(part["log"]).read_bytes() for part in gateway.run["components"]}
        places |= {path: gateway.api("GET", path).content for path in ("/v1/config", "/v1/nodes")}
        admin = gateway.component("envoy")["admin"]
        places |= {page: gateway.read(admin + page).encode() for page in ("/config_dump?include_eds", "/server_info")}
        places |= {f"metrics of {name}": gateway.metrics(name).encode() for name in ("authz", "controlplane", "envoy")}
        assert len(places["/config_dump?include_eds"]) > 10_000
        for secret in SECRETS.values():
            for spelling in spellings(secret.encode()):
                assert not [place for place, text in places.items() if spelling in text]


def spellings(secret: bytes) -> list[bytes]:
    """Without the last characters of base64, which depend on what follows."""
    return [secret, secret.hex().encode(), base64.b64encode(secret)[:-4], base64.urlsafe_b64encode(secret)[:-4]]
