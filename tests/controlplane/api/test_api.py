"""The operator API, from outside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from controlplane.api.app import create_app
from controlplane.api.auth import Operators, Role
from controlplane.breakers.controller import BreakerController
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import BreakerRegistry
from controlplane.config import document
from controlplane.config.model import Service
from controlplane.errors import EnvoyUnavailable
from controlplane.health.checker import HealthChecker
from controlplane.publish import Change, Publisher
from controlplane.store.memory import MemoryStore
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.resources import CLUSTER
from controlplane.xds.runtime import RuntimeLayers
from controlplane.xds.status import NodeRegistry, NodeStatus
from controlplane.xds.stream import Watch
from tests.support.configs import TOPOLOGY, default_text
from tests.support.declared import check_declared

TOKENS = {"a-viewer": Role.VIEWER, "an-editor": Role.EDITOR, "an-admin": Role.ADMIN}
TEXT = default_text()
OTHER = TEXT.replace("trusted_hops: 0", "trusted_hops: 1")
YAML = {"content-type": "application/yaml"}
SECRET = "hush-" * 8


Content = str | bytes | AsyncIterator[bytes]


class Api:
    """The application and a client for it."""

    def __init__(self, published: bool = True) -> None:
        environment = {"JWT_SECRET": SECRET, "MGW_API_TOKEN": SECRET}
        self.publisher = Publisher(MemoryStore(), SnapshotCache(), TOPOLOGY, environment, frozenset(), None)
        self.registry = NodeRegistry()
        self.well = True
        self.checker = HealthChecker(self.probe, {"authz": self.probe_dependency}, lambda: 0.0)
        self.controller = BreakerController(
            BreakerRegistry(lambda: 0.0),
            RuntimeLayers(),
            OverrideFile(None),
            self.publisher.current_config,
            self.publisher.use_forces,
        )
        self.app: FastAPI = create_app(self.publisher, self.registry, self.checker, self.controller, Operators(TOKENS))
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://api")

    async def probe(self, _service: Service) -> bool:
        return self.well

    async def probe_dependency(self) -> bool:
        return self.well

    async def call(self, method: str, path: str, *, token: str | None = "an-admin", **more: Any) -> httpx2.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        response = await self.client.request(method, path, headers=headers, **more)
        check_declared(self.app, method, path, response.status_code)
        return response

    async def put(self, text: Content, if_match: str | None = '"1"', **headers: str) -> httpx2.Response:
        given = YAML | {name.replace("_", "-"): value for name, value in headers.items()}
        if if_match is not None:
            given["if-match"] = if_match
        return await self.call("PUT", "/v1/config", content=text, headers=given)


@pytest.fixture
async def empty() -> AsyncIterator[Api]:
    """An API before any configuration is in force."""
    api = Api()
    async with api.client:
        yield api


@pytest.fixture
async def api(empty: Api) -> Api:
    """An API with the default document as revision 1."""
    await empty.publisher.publish(Change(TEXT, "application/yaml", author="file", reason="", expected=None))
    return empty


def is_problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    """Checks the form of an error (RFC 9457) and gives its content."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == status
    assert {"type", "title", "detail"} <= set(content)
    return content


def operator_calls() -> Iterator[tuple[str, str]]:
    """Every call under /v1 that the application knows."""
    for route in _leaves(Api().app.routes):
        if route.path.startswith("/v1"):
            path = route.path.replace("{", "").replace("}", "")
            yield from ((method, path) for method in sorted(route.methods or ()))


def _leaves(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        inner = getattr(route, "original_router", None) or getattr(route, "router", None) or getattr(route, "app", None)
        yield from _leaves(getattr(inner, "routes", ()))


CALLS = list(operator_calls())


def test_the_calls_are_known() -> None:
    """The list that the next tests go through is not empty."""
    assert {("GET", "/v1/config"), ("PUT", "/v1/config"), ("POST", "/v1/config/validate"), ("GET", "/v1/nodes")} <= set(
        CALLS
    )


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nobody",
        "Basic YW46YWRtaW4=",
        "an-admin",
        "Bearer an-admin2",
        "Bearer \xe9",
    ],
)
async def test_no_call_without_a_token(api: Api, method: str, path: str, authorization: str | None) -> None:
    """Every operator call without a valid token is 401, before anything else about it is looked at."""
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}

    response = await api.client.request(method, path, headers=headers, content=b"\xff")

    is_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), [call for call in CALLS if call[0] in {"PUT", "DELETE", "PATCH"}])
async def test_a_viewer_changes_nothing(api: Api, method: str, path: str) -> None:
    """A viewer's token does not write."""
    content = is_problem(
        await api.call(method, path, token="a-viewer", content=OTHER, headers={"if-match": '"1"'}), 403
    )

    assert "editor" in content["detail"] or "admin" in content["detail"]
    assert (await api.publisher._store.current()).number == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("token", TOKENS)
async def test_everyone_reads(api: Api, token: str) -> None:
    """Each role reads the document, and may try another."""
    assert (await api.call("GET", "/v1/config", token=token)).status_code == 200
    tried = await api.call("POST", "/v1/config/validate", token=token, content=OTHER, headers=YAML)
    assert (tried.status_code, tried.json()) == (200, {"valid": True})


async def test_a_warning_is_told_to_whoever_writes(api: Api) -> None:
    """What is accepted and probably not meant: its place and what to write, when it is tried and when it holds."""
    text = OTHER.replace("tier: tier", "tier: app.tier")
    assert text != OTHER

    tried = await api.call("POST", "/v1/config/validate", content=text, headers=YAML)
    written = await api.put(text)

    assert (tried.status_code, written.status_code) == (200, 200)
    assert tried.json()["valid"] is True
    (warning,) = tried.json()["warnings"]
    assert warning["path"] == "auth.providers.0.claims.tier"
    assert "/app/tier" in warning["message"]
    assert warning["line"] > 1
    assert written.json()["warnings"] == [warning]


async def test_the_document_comes_back_as_it_was_written(api: Api) -> None:
    """Text, comments and references are those of the revision that the ETag names."""
    response = await api.call("GET", "/v1/config")

    assert response.text == TEXT
    assert response.headers["content-type"].startswith("application/yaml")
    assert response.headers["etag"] == '"1"'


async def test_the_document_as_json(api: Api) -> None:
    """Who asks for JSON gets the same values, with references as they are."""
    response = await api.call("GET", "/v1/config", headers={"accept": "application/json"})

    assert response.headers["content-type"] == "application/json"
    assert response.headers["etag"] == '"1"'
    assert response.json() == document.read(TEXT).data
    assert response.json()["listener"]["port"] == "${API_GATEWAY_PORT:-8080}"


async def test_a_change_is_in_force_and_has_a_new_etag(api: Api) -> None:
    """A write names the revision that it became, who wrote it and why."""
    response = await api.put(OTHER, x_change_reason="one more proxy")

    assert (response.status_code, response.headers["etag"]) == (200, '"2"')
    assert response.json()["revision"] == 2
    published = api.publisher.published
    assert published is not None
    assert (published.revision.author, published.revision.reason) == ("admin", "one more proxy")
    assert (await api.call("GET", "/v1/config")).text == OTHER


async def test_json_can_be_written(api: Api) -> None:
    """A document in JSON is kept and answered as JSON."""
    text = json.dumps(document.read(OTHER).data, indent=2)

    written = await api.put(text, content_type="application/json; charset=utf-8")
    read = await api.call("GET", "/v1/config")

    assert (written.status_code, read.text) == (200, text)
    assert read.headers["content-type"] == "application/json"


async def test_no_change_answers_the_same_revision(api: Api) -> None:
    """The same document again is no new revision."""
    response = await api.put(TEXT)

    assert (response.status_code, response.headers["etag"], response.json()["revision"]) == (200, '"1"', 1)


async def test_a_write_must_say_what_it_changes(api: Api) -> None:
    """Without If-Match a write is refused: nobody overwrites what they have not seen."""
    is_problem(await api.put(OTHER, if_match=None), 428)


@pytest.mark.parametrize("if_match", ['"0"', '"2"', '"99999999999999999"'])
async def test_a_stale_write_is_refused(api: Api, if_match: str) -> None:
    """Another revision is current: the answer says which."""
    response = await api.put(OTHER, if_match=if_match)

    assert is_problem(response, 412)["current_revision"] == 1
    assert response.headers["etag"] == '"1"'


@pytest.mark.parametrize("if_match", ["1", '"one"', "", '"1", "2"', '"-1"', '"' + "9" * 30 + '"'])
async def test_what_is_no_etag_of_ours(api: Api, if_match: str) -> None:
    """An If-Match that no revision can have matches none."""
    is_problem(await api.put(OTHER, if_match=if_match), 412)


BAD = TEXT.replace("trusted_hops: 0", "trusted_hobs: 0").replace("pro: {rps: 50", "pro: {rps: 0")
BAD = BAD.replace("name: tv-popular", "name: genres").replace("service: sona, auth", "service: sonar, auth")


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/config"), ("POST", "/v1/config/validate")])
async def test_a_bad_document_is_refused_with_everything_that_is_wrong(api: Api, method: str, path: str) -> None:
    """Each problem has its path, message, line and column; the revision in force stays."""
    response = await api.call(method, path, content=BAD, headers=YAML | {"if-match": '"1"'})

    problems = is_problem(response, 422)["problems"]
    assert [problem["path"] for problem in problems] == [
        "listener.trusted_hobs",
        "limits.tiers.pro.rps",
        "routes.10.name",
        "routes.16.service",
    ]
    assert all(problem["message"] and problem["line"] and problem["column"] for problem in problems)
    assert (await api.call("GET", "/v1/config")).headers["etag"] == '"1"'


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/yaml", 200),
        ("text/yaml", 200),
        ("application/x-yaml", 200),
        ("Application/YAML; charset=utf-8", 200),
        ("application/json", 400),
        ("text/plain", 415),
        ("multipart/form-data", 415),
        ("application/merge-patch+json", 415),
        ("", 415),
    ],
)
async def test_media_types(api: Api, media_type: str, status: int) -> None:
    """A document is YAML or JSON, and is what it says that it is."""
    response = await api.put(OTHER, content_type=media_type)

    assert response.status_code == status, response.text
    if status != 200:
        is_problem(response, status)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_document_that_is_too_large(api: Api, declared: bool) -> None:
    """8 MiB are the most, whether the length was declared or not."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(document.MAX_BYTES // 65536 + 1):
            yield b"#" * 65536

    content: Any = b"#" * (document.MAX_BYTES + 1) if declared else parts()

    is_problem(await api.put(content), 413)


async def test_an_endless_body_is_not_read_to_its_end(api: Api) -> None:
    """What exceeds the limit is refused at once: memory is not the client's."""
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65536
            assert read <= 2 * document.MAX_BYTES, "the body is read on and on"
            yield b"#" * 65536

    is_problem(await api.put(parts()), 413)


@pytest.mark.parametrize(
    ("text", "media_type"),
    [
        (b"\xff\xfe", "application/yaml"),
        (b"\xff\xfe", "application/json"),
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
async def test_what_cannot_be_read(api: Api, text: bytes, media_type: str) -> None:
    """Bytes that are no UTF-8, or JSON that is none, are 400."""
    is_problem(await api.put(text, content_type=media_type), 400)


@pytest.mark.parametrize(
    "text", ["", "a: [", "a: 1\na: 2", "[" * 50, "a: &x [*x]", "null", "[]", "text", "services: [null]"]
)
async def test_what_is_no_document(api: Api, text: str) -> None:
    """Text that is no document of ours is 422 with a place, and never an error of ours."""
    problems = is_problem(await api.put(text), 422)["problems"]

    assert all(problem["line"] for problem in problems)


async def test_before_the_first_configuration(empty: Api) -> None:
    """Without a configuration there is nothing to read, and the gateway is neither well nor ready."""
    is_problem(await empty.call("GET", "/v1/config"), 503)
    assert (await empty.call("GET", "/health")).status_code == 503
    assert (await empty.call("GET", "/health/ready")).json()["ready"] is False
    assert (await empty.call("GET", "/health/live")).json() == {"status": "alive"}


async def test_without_a_judge_nothing_is_written(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Envoy that cannot judge is our fault and passing: 503."""

    async def unavailable(_: str) -> None:
        raise EnvoyUnavailable("no Envoy for this platform")

    monkeypatch.setattr(api.publisher, "check", unavailable)

    is_problem(await api.put(OTHER), 503)


async def test_our_own_mistakes_are_problems_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is a 500 in the same form, and tells nothing of the inside."""

    async def broken(_: str) -> None:
        raise RuntimeError(f"inside {SECRET}")

    monkeypatch.setattr(api.publisher, "check", broken)

    response = await api.put(OTHER)

    is_problem(response, 500)
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nowhere", 404), ("DELETE", "/v1/config", 405), ("PATCH", "/v1/nodes", 405), ("POST", "/health", 405)],
)
async def test_unknown_calls_are_problems(api: Api, method: str, path: str, status: int) -> None:
    """A wrong path or method answers in the same form."""
    is_problem(await api.call(method, path), status)


PRYING = [
    TEXT.replace("http://localhost:8082", "${MGW_API_TOKEN}"),
    TEXT.replace("${SONA_SERVICE_URL:-http://localhost:8082}", "http://${JWT_SECRET}/"),
    TEXT.replace("path: /api/v1/genres", 'path: "/ ${MGW_API_TOKEN}"'),
    TEXT.replace("service: sona, auth", 'service: "${MGW_API_TOKEN}", auth'),
    TEXT.replace('"${JWT_SECRET}"', '"${JWT_SECRET:-x}"'),
    TEXT.replace('      secret: "${JWT_SECRET}"', '      secret: "${JWT_SECRET}"\n      issuer: "${JWT_SECRET}"'),
]


@pytest.mark.parametrize("text", [TEXT, OTHER, *PRYING])
async def test_no_answer_holds_a_secret(api: Api, text: str) -> None:
    """Neither the document, nor a refusal, nor anything else that is answered shows a secret of the environment."""
    answers = [await api.put(text), await api.call("POST", "/v1/config/validate", content=text, headers=YAML)]
    for accept in ("*/*", "application/json"):
        answers.append(await api.call("GET", "/v1/config", headers={"accept": accept}))
    answers += [await api.call("GET", path) for path in ("/v1/nodes", "/health", "/metrics", "/openapi.json")]

    for answer in answers:
        assert SECRET not in answer.text
        assert "an-admin" not in answer.text


async def test_nodes(api: Api) -> None:
    """Per node and type: the version that was sent, the one that is acknowledged, and what was rejected and why."""
    stream = object()
    api.registry.connected(stream, NodeStatus("envoy-0", "media-gateway", "envoy"))
    api.registry.record(stream, {CLUSTER: Watch(sent="v2", acknowledged="v1", rejected="v2", error="no such thing")})

    (node,) = (await api.call("GET", "/v1/nodes")).json()["nodes"]

    assert node["id"] == "envoy-0"
    assert node["types"] == [
        {
            "type_url": CLUSTER,
            "version_sent": "v2",
            "version_acknowledged": "v1",
            "rejected": {"version": "v2", "error": "no such thing"},
        }
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_needs_no_token(api: Api, method: str) -> None:
    """Health is for anyone; its states are those of the probes and breakers."""
    whole, ready = [await api.call(method, path, token=None) for path in ("/health", "/health/ready")]

    assert (whole.status_code, ready.status_code) == (200, 200)
    if method == "GET":
        assert whole.json()["status"] == "healthy"
        assert set(whole.json()["checks"]) == {"discovery", "sona", "sync", "auth"}


async def test_sick_services_show(api: Api) -> None:
    """With every critical service down the gateway is unhealthy; without authz it is not ready."""
    api.well = False

    whole, ready = [await api.call("GET", path, token=None) for path in ("/health", "/health/ready")]

    assert (whole.status_code, whole.json()["status"]) == (503, "unhealthy")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)


async def test_openapi_builds(api: Api) -> None:
    """The description of the API has every call, and says that operators need a token."""
    found = (await api.call("GET", "/openapi.json", token=None)).json()

    assert {path for path in found["paths"] if path.startswith("/v1")} >= {"/v1/config", "/v1/nodes"}
    for path, calls in found["paths"].items():
        if path.startswith("/v1"):
            assert all(call.get("security") for call in calls.values()), path
    ids = [call["operationId"] for each in found["paths"].values() for call in each.values()]
    assert len(set(ids)) == len(ids)


async def test_openapi_names_bodies_and_no_error_that_does_not_occur(api: Api) -> None:
    """Every write says what it takes; a 422 is declared only where a document can be rejected."""
    found = (await api.call("GET", "/openapi.json", token=None)).json()
    calls = {(path, method): call for path, each in found["paths"].items() for method, call in each.items()}

    without_body = {("/v1/callers/{caller}/override", "delete")}
    writes = {key for key in calls if key[1] in ("put", "post", "delete")} - without_body
    assert all("requestBody" in calls[key] for key in writes)
    assert set(calls["/v1/config", "put"]["requestBody"]["content"]) == {"application/yaml", "application/json"}
    assert {path for (path, _), call in calls.items() if "422" in call["responses"]} == {
        "/v1/config",
        "/v1/config/validate",
    }
    for call in calls.values():
        for status, response in call["responses"].items():
            if int(status) >= 400 and call["tags"] != ["health"]:
                assert "application/problem+json" in response["content"]


async def test_metrics(api: Api) -> None:
    """The process's metrics name the revision."""
    assert "mgw_config_revision 1.0" in (await api.call("GET", "/metrics")).text


@pytest.mark.parametrize(
    ("token", "role"),
    [("a-viewer", Role.VIEWER), ("an-editor", Role.EDITOR), ("an-admin", Role.ADMIN), ("", None), ("an-admi", None)],
)
def test_roles(token: str, role: Role | None) -> None:
    """A token is known as a whole or not at all."""
    assert Operators(TOKENS).role(token) is role
