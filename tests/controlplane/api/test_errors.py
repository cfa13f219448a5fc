"""Whatever goes wrong, the answer is a problem document that tells nothing of the inside."""

from __future__ import annotations

import pytest

from controlplane.errors import EnvoyUnavailable
from tests.support.operator_api import OTHER, SECRET, TEXT, YAML, Api, is_problem


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
