"""Reading and writing the document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.config import document
from tests.support.operator_api import OTHER, TEXT, YAML, Api, is_problem


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
