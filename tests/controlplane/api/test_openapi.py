"""What the API says of itself."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from controlplane.api import openapi
from controlplane.api.errors import MEDIA_TYPE, TITLES
from tests.support.operator_api import OTHER, YAML, Api


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


def described(app: FastAPI) -> dict[str, Any]:
    openapi.install(app)
    return app.openapi()


async def test_every_reference_leads_somewhere(api: Api) -> None:
    """A generator of clients finds each schema that is named."""
    found = (await api.call("GET", "/openapi.json", token=None)).json()

    named = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(found)))
    assert named
    assert named <= set(found["components"]["schemas"])
    assert "Finding" in found["components"]["schemas"]


@pytest.mark.parametrize(
    ("method", "path", "content", "if_match", "status"),
    [
        ("PUT", "/v1/config", OTHER, '"0"', 412),
        ("PUT", "/v1/config", OTHER, None, 428),
        ("PUT", "/v1/config", "a: [", '"1"', 422),
        ("PUT", "/v1/breakers/sona", "{}", None, 400),
        ("PUT", "/v1/breakers/nowhere", '{"force": "open"}', None, 404),
        ("GET", "/v1/nowhere", "", None, 404),
        ("DELETE", "/v1/nodes", "", None, 405),
    ],
)
async def test_errors_are_as_they_are_described(
    api: Api, method: str, path: str, content: str, if_match: str | None, status: int
) -> None:
    """The body of a real error fits the schema, and has nothing that the schema does not name."""
    schemas = (await api.call("GET", "/openapi.json", token=None)).json()["components"]["schemas"]
    schema = {**schemas["ProblemDocument"], "components": {"schemas": schemas}, "additionalProperties": False}
    headers = {"content-type": "application/json"} if content.startswith("{") else dict(YAML)

    response = await api.call(
        method, path, content=content, headers=headers | ({"if-match": if_match} if if_match else {})
    )

    assert response.status_code == status
    jsonschema.validate(response.json(), schema)


async def test_describing_twice_says_the_same(api: Api) -> None:
    """The description is kept, and asking for it does not change it."""
    first = (await api.call("GET", "/openapi.json", token=None)).json()

    assert api.app.openapi() == first == (await api.call("GET", "/openapi.json", token=None)).json()


def test_what_fastapi_presumes_is_not_described() -> None:
    """It takes 422 for granted wherever there is a parameter; what does not fit is 400 here, and declared by hand."""
    app = FastAPI()
    app.get("/a", responses=openapi.problems(400))(lambda number: number)

    found = described(app)

    assert set(found["paths"]["/a"]["get"]["responses"]) == {"200", "400", "500"}
    assert not {"HTTPValidationError", "ValidationError"} & found["components"]["schemas"].keys()


def test_a_422_of_our_own_stays() -> None:
    """A document can be rejected, parameters or not."""
    app = FastAPI()
    app.put("/a", responses=openapi.problems(422))(lambda number: number)

    response = described(app)["paths"]["/a"]["put"]["responses"]["422"]

    assert response["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}


def test_an_application_without_a_call_is_described() -> None:
    """It has the form of its errors, if nothing else."""
    assert set(described(FastAPI())["components"]["schemas"]) == {"Finding", "ProblemDocument"}


def test_an_operations_errors_are_told_in_order_and_500_always() -> None:
    """Whatever the order in which they were named, and each once."""
    found = openapi.problems(422, 401, 401)

    assert list(found) == [401, 422, 500]
    assert found[401]["description"] == "Unauthorized. No valid token."


def test_every_error_has_a_title_and_a_when() -> None:
    """Whatever an operation can declare, and 405, which belongs to no operation."""
    assert set(TITLES) == {*openapi.WHEN, 405}
    with pytest.raises(KeyError):
        openapi.problems(418)


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/v1/config", "*/*"), ("/v1/config", "application/json"), ("/metrics", "*/*"), ("/v1/nodes", "*/*")],
)
async def test_what_is_answered_has_the_media_type_that_is_described(api: Api, path: str, accept: str) -> None:
    """A document as it was written or as JSON, metrics as text, all else as JSON."""
    operation = (await api.call("GET", "/openapi.json", token=None)).json()["paths"][path]["get"]

    answered = (await api.call("GET", path, headers={"accept": accept})).headers["content-type"]

    assert answered.partition(";")[0] in operation["responses"]["200"]["content"]


async def test_a_document_is_text_in_yaml_and_an_object_in_json(api: Api) -> None:
    """So that a generated client takes the one as it is, and builds the other."""
    operation = (await api.call("GET", "/openapi.json", token=None)).json()["paths"]["/v1/config"]["put"]

    content = operation["requestBody"]["content"]
    assert {name: each["schema"]["type"] for name, each in content.items()} == {
        "application/yaml": "string",
        "application/json": "object",
    }
    assert operation["requestBody"]["required"] is True
