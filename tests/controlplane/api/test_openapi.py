"""What the API says of itself."""

from __future__ import annotations

from tests.support.operator_api import Api


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
