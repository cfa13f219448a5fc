"""Contract 6: one JSON line a request, with the same fields for every outcome, and never a token."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import SECRET, Echo, Gateway, bearer, client_address, default_document, token, unique
from tests.support.waiting import eventually

PATH = "/api/v1/genres"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

OUTCOMES: list[tuple[str, str, int, str, str | None, str | None, str | None]] = [
    ("GET", PATH, 200, "INFO", None, "genres", "discovery"),
    ("POST", "/api/v1/search?q=1", 200, "INFO", None, "search", "discovery"),
    ("GET", "/t/required", 401, "WARN", "UNAUTHORIZED", "t-required", "patient"),
    ("GET", "/nowhere", 404, "WARN", "NOT_FOUND", None, None),
    ("DELETE", PATH, 405, "WARN", "METHOD_NOT_ALLOWED", None, None),
    ("GET", "/api/v1/content/a%2fb", 400, "WARN", "BAD_REQUEST", None, None),
    ("GET", "/t/dead", 502, "ERROR", "PROXY_ERROR", "t-dead", "dead"),
]


def asked(gateway: Gateway, target: str, method: str = "GET", *headers: tuple[str, str]) -> tuple[int, dict[str, Any]]:
    """The status of a request, and its line in the log."""
    mine = unique("log")
    body = b"x" if method == "POST" else None
    answer = gateway.ask(target, method, [*headers, ("X-Request-ID", mine)], body)
    return answer.status, gateway.log_line(mine)


@pytest.mark.parametrize(("method", "target", "status", "level", "error", "route", "service"), OUTCOMES)
def test_a_request_has_one_line(
    gateway: Gateway,
    method: str,
    target: str,
    status: int,
    level: str,
    error: str | None,
    route: str | None,
    service: str | None,
) -> None:
    """Each outcome is logged with its level, the documented fields, and their types."""
    address = ("X-Forwarded-For", client_address())

    said, line = asked(gateway, target, method, address, ("X-Correlation-ID", "chain"))

    path, _, query = target.partition("?")
    assert (said, line["status"], line["level"], line.get("error")) == (status, status, level, error)
    assert (line["method"], line["path"], line.get("query", "")) == (method, path, query)
    assert (line["user_id"], line["tier"], line["correlation_id"]) == ("anonymous", "anonymous", "chain")
    assert TIMESTAMP.fullmatch(line["timestamp"])
    assert isinstance(line["status"], int)
    assert isinstance(line["duration_ms"], int | float)
    assert line["duration_ms"] >= 0
    if route:
        assert (line["route"], line["service"]) == (route, service)
    assert sum(other.get("request_id") == line["request_id"] for other in gateway.log_lines()) == 1


def test_a_verified_caller_is_named(gateway: Gateway) -> None:
    """user_id is the verified subject, tier its tier; a client's own claim to either is not believed."""
    subject = unique("ann")

    _, line = asked(gateway, PATH, "GET", bearer(token(sub=subject, tier="pro")), ("X-User-ID", "eve"))

    assert (line["user_id"], line["tier"], line["provider"], line["level"]) == (subject, "pro", "platform", "INFO")


def test_a_bad_token_names_nobody(gateway: Gateway) -> None:
    """A caller whose token is not good is anonymous in the log, with AUTH_FAILED."""
    status, line = asked(gateway, "/t/required", "GET", bearer(token(sub="eve", ttl=-5)))

    assert (status, line["error"], line["user_id"], line["tier"]) == (401, "AUTH_FAILED", "anonymous", "anonymous")
    assert "provider" not in line


def test_a_429_is_a_warning(gateway: Gateway) -> None:
    """It carries the caller and RATE_LIMITED."""
    subject = unique("busy")
    caller = bearer(token(sub=subject, tier="free"))
    assert eventually(lambda: gateway.ask("/t/scarce", headers=[caller]).status == 429, every=0)

    status, line = asked(gateway, "/t/scarce", "GET", caller)

    assert status == 429
    assert (line["level"], line["error"], line["user_id"], line["service"]) == (
        "WARN",
        "RATE_LIMITED",
        subject,
        "patient",
    )


def test_an_upstreams_error_has_no_code_of_ours(gateway: Gateway) -> None:
    """A service's own 500 is an ERROR by its status; `error` is for the gateway's refusals."""
    status, line = asked(gateway, "/t/dear", "GET", ("X-Demo-Status", "500"), bearer(token(tier="pro")))

    assert (status, line["level"], line.get("error")) == (500, "ERROR", None)


JWE = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aXY.Y2lwaGVydGV4dA.b3BhcXVlLXNlY3JldC12YWx1ZQ"
SECRETS_IN = [
    "{path}?access_token={token}",
    "{path}?token={token}",
    "{path}?a=1&Token={token}&b=2",
    "{path}?jwt={token}",
    "{path}?q={token}",
    "{path}?q={dotless}",
    "{path}?q={twice}",
    "{path}?q={jwe}",
    "{path}?id_token={token}&access_token={token}",
    "{path}?refresh_token=opaque-secret-value",
    "{path}?TOKEN=opaque-secret-value",
    "{path}?access%5Ftoken={token}",
    "{path}?access_%74oken=opaque-secret-value",
    "{path}?access%255Ftoken%3Dopaque-secret-value",
    "{path}?a=1;access_token=opaque-secret-value;b=2",
    "{path}?to=https%3A%2F%2Fapp%2Fcb%3Fcode%3Dopaque-secret-value%26x%3D1",
    "{path}?user%5Bpassword%5D=opaque-secret-value",
    "{path}?X-Amz-Signature=opaque-secret-value&X-Amz-Credential=opaque-secret-value",
    "{path}?api_key=opaque-secret-value&client_secret=opaque-secret-value&authorization=opaque-secret-value",
    "{path}?SAMLResponse=opaque-secret-value",
    "{path}?h=Bearer%20opaque-secret-value-of-somebody",
    "{path};access_token=opaque-secret-value",
    "{path}/{token}",
    "{path}/{dotless}",
    "{path}/{jwe}?q=1",
    "{path}%2fcode=opaque-secret-value?code=opaque-secret-value",
    "/t/open%3Ftoken=opaque-secret-value",
]


@pytest.mark.parametrize("template", SECRETS_IN)
def test_a_credential_in_the_target_is_not_logged(gateway: Gateway, template: str) -> None:
    """Whatever its parameter is called and however it is encoded, the log has the line without its value."""
    caller = token(tier="pro")
    dotless, twice = caller.replace(".", "%2e"), caller.replace(".", "%252E")
    target = template.format(path=PATH, token=caller, dotless=dotless, twice=twice, jwe=JWE)

    _, line = asked(gateway, target, "GET", bearer(caller))

    text = repr(line)
    assert "***" in text
    for secret in (*caller.split(".")[1:], JWE.rpartition(".")[2], "opaque-secret-value"):
        assert secret not in text


def test_a_credential_reaches_the_service_as_it_was_sent(gateway: Gateway) -> None:
    """Only the log is masked."""
    target = f"{PATH}?access_%74oken=a%2eb;code=c"

    assert Echo.of(gateway.ask(target, headers=[bearer(token(tier="pro"))])).target == target


@pytest.mark.parametrize(
    ("headers", "status"), [([(f"X-{number}", "1") for number in range(150)], 431), ([("Host", "a,b")], 400)]
)
def test_a_credential_is_not_logged_if_the_headers_are_refused(
    gateway: Gateway, headers: list[tuple[str, str]], status: int
) -> None:
    """However early the request is refused."""
    said, line = asked(gateway, f"{PATH}/{JWE}?code=opaque-secret-value", "GET", *headers)

    assert (said, line["status"]) == (status, status)
    assert (line["path"], line["query"]) == (f"{PATH}/***", "code=***")


@pytest.mark.parametrize("target", [f"{PATH}#access_token=opaque-secret-value", f"{PATH}/a.b#{JWE}", "/a#b"])
def test_a_request_that_fails_early_logs_no_path_that_may_hide_something(gateway: Gateway, target: str) -> None:
    """Nothing has looked at its path."""
    before = sum(1 for _ in gateway.log_lines())
    assert gateway.ask(target).status == 400

    def logged() -> dict[str, Any] | None:
        new = list(gateway.log_lines())[before:]
        return next((line for line in new if line["status"] == 400), None)

    line = eventually(logged, 12)
    assert line is not None
    assert (line["path"], line.get("query"), line["error"]) == ("***", None, "BAD_REQUEST")


def test_a_request_that_fails_early_logs_a_plain_path(gateway: Gateway) -> None:
    """If there can be no credential in it."""
    path = f"/{unique('early')}"
    assert gateway.send(f"GET {path}?token=x HTTP/1.1\r\n\r\n".encode()) is not None

    line = eventually(lambda: next((each for each in gateway.log_lines() if each.get("path") == path), None), 12)
    assert line is not None
    assert (line["status"], line.get("query")) == (400, None)


@pytest.mark.parametrize(
    ("log", "logged"),
    [
        ({"query": "full"}, "q=1&token=x%2ey&iban=DE12"),
        ({"query": "none"}, None),
        ({"mask_parameters": ["IBAN"]}, "q=1&token=***&iban=***"),
    ],
    ids=str,
)
def test_how_much_of_a_query_is_logged(start: StartGateway, log: dict[str, Any], logged: str | None) -> None:
    """`log.query` and `log.mask_parameters` decide; a token in a path is never there."""
    gateway = start(document=default_document() | {"log": log})

    _, line = asked(gateway, f"/nowhere/{JWE}?q=1&token=x%2ey&iban=DE12")

    assert (line.get("query"), line["path"]) == (logged, "/nowhere/***")


def test_no_log_of_any_part_has_a_secret(gateway: Gateway) -> None:
    """Neither tokens, good or bad, nor the signing secret, nor the operator's token stand in any file of logs."""
    good, bad = token(tier="pro"), token(secret="another-secret-of-the-same-good-length")
    for caller in (good, bad, "opaque-nonsense-token"):
        for path in (PATH, "/t/required", "/nowhere", f"/api/v1/content/{caller}"):
            asked(gateway, path, "GET", bearer(caller))

    logs = "".join(path.read_text(errors="replace") for path in (gateway.directory / "log").glob("*.log"))
    found = [
        name for name, secret in {"JWT_SECRET": SECRET, "API token": gateway.run["api_token"]}.items() if secret in logs
    ]
    found += [name for name, secret in {"good": good, "bad": bad}.items() if secret.split(".")[2] in logs]
    assert found == []
    assert not re.search(r"authorization.{0,4}bearer", logs, re.IGNORECASE)


def test_a_hostile_header_cannot_forge_a_line(gateway: Gateway) -> None:
    """Whatever stands in path, query and ids, each line stays one JSON object."""
    subject = 'x","level":"FORGED","y":"'
    target = f'{PATH}?q="}}%0a{{"level":"FORGED"}}'

    _, line = asked(gateway, target, "GET", bearer(token(sub=subject, tier="pro")))

    assert (line["level"], line["user_id"]) == ("INFO", subject)
    log = Path(gateway.component("envoy")["log"]).read_text()
    assert '"level":"FORGED"' not in log


def test_served_requests_can_be_left_out(start: StartGateway) -> None:
    """`log.requests: failed` keeps lines for refusals and failures; of what was served there are none."""
    gateway = start(document=default_document() | {"log": {"requests": "failed"}})
    served = [unique("served") for _ in range(3)]
    for mine, target, more in zip(served, (PATH, f"{PATH}?q=1", PATH), ([], [], [("X-AI-Agent", "bot")]), strict=True):
        assert gateway.ask(target, headers=[("X-Request-ID", mine), *more]).status == 200

    assert asked(gateway, "/api/v1/user/profile")[1]["error"] == "UNAUTHORIZED"
    assert asked(gateway, "/nowhere", "GET", ("X-AI-Agent", "bot"))[1]["ai_agent"] is True
    assert asked(gateway, PATH, "GET", ("X-Demo-Status", "500"))[1]["level"] == "ERROR"
    assert not {line["request_id"] for line in gateway.log_lines()} & set(served)


def test_envoys_log_is_bounded(start: StartGateway) -> None:
    """Past MGW_LOG_MIB it is kept as the one before and begins anew. Lines are whole, and what follows is logged."""
    gateway = start(environment={"MGW_LOG_MIB": "1"})
    log = Path(gateway.component("envoy")["log"])
    before = log.with_name(f"{log.name}.1")
    long = "x" * 20_000
    for _ in range(70):
        gateway.ask(f"{PATH}?q={long}")

    assert eventually(lambda: before.exists() and log.stat().st_size < 1 << 20, 20)
    _, line = asked(gateway, PATH)

    assert line["path"] == PATH
    assert before.stat().st_size > 1 << 20
    for text in (before.read_text(), log.read_text()):
        whole, _, _ = text.rpartition("\n")
        assert all(json.loads(each) for each in whole.splitlines())
