"""The reference of the document misses no key, and every example in it is one that loads."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.config import document, load
from controlplane.errors import ConfigRejected
from controlplane.reference.docstrings import field_texts
from controlplane.reference.models import models
from controlplane.reference.schema import schema
from docs.generate.configuration import configuration
from docs.generate.examples import EXAMPLES
from tests.support.configs import ENVIRONMENT, default_text, rich_text, values

SAMPLES = [(name, number) for name, texts in EXAMPLES.items() for number in range(len(texts))]
BASE = values(
    services=[{"name": "orders", "endpoints": [{"url": "http://10.0.0.1:8081"}]}],
    routes=[{"name": "orders", "match": {"path": "/orders", "methods": ["GET"]}, "service": "orders"}],
)


def completed(part: Any, base: Any = BASE) -> Any:
    """An example, with the rest of a document around it."""
    return {
        **base,
        **{key: completed(child, base.get(key, {})) if _is_part(key) else child for key, child in part.items()},
    }


def _is_part(key: str) -> bool:
    return key in ("auth", "limits")


def keys_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for child in value.values() for key in keys_in(child)}
    return {key for child in value for key in keys_in(child)} if isinstance(value, list) else set()


@pytest.mark.parametrize(("name", "number"), SAMPLES)
def test_every_example_loads_and_fits_the_schema(name: str, number: int) -> None:
    """By the real loader, with the rest of a document around it; and by the schema, as it is written."""
    whole = completed(document.read(EXAMPLES[name][number]).data)
    text = yaml.safe_dump(whole)

    load.load(text, {})
    jsonschema.validate(whole, schema())


def test_every_field_has_a_meaning_and_an_example() -> None:
    """No key is missing from the page, and each stands in an example of its object."""
    page = configuration()
    for model in models():
        shown = {key for text in EXAMPLES[model.__name__] for key in keys_in(document.read(text).data)}
        for name, field in model.model_fields.items():
            key = str(field.alias or name)
            assert field_texts(model).get(name), f"{model.__name__}.{name} says nothing"
            assert f"| `{key}` |" in page
            assert key in shown, f"no example of {model.__name__} shows {key}"


def test_every_object_has_a_place_and_an_example() -> None:
    """What is added to the model has to be added here."""
    assert {model.__name__ for model in models()} == set(EXAMPLES)


@pytest.mark.parametrize("text", [default_text(), rich_text()])
def test_documents_fit_the_schema_as_they_are_written(text: str) -> None:
    """References and defaults included, so that an editor has nothing to complain of."""
    jsonschema.validate(document.read(text).data, schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trusted_hops: 0", "trusted_hobs: 0"),
        ("trusted_hops: 0", "trusted_hops: many"),
        ("algorithms: [HS256]", "algorithms: [none]"),
        ("rps: 5,", "rps: 0,"),
        ("version: 1", "version: 2"),
    ],
)
def test_what_the_loader_rejects_of_a_field_the_schema_does_too(old: str, new: str) -> None:
    """A misspelt key, a wrong type, a value that is not among those allowed, a number out of bounds."""
    text = default_text().replace(old, new, 1)
    assert text != default_text()

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document.read(text).data, schema())
    with pytest.raises(ConfigRejected):
        load.load(text, ENVIRONMENT)


def test_the_schema_is_one() -> None:
    """By the rules of its own dialect."""
    jsonschema.Draft202012Validator.check_schema(schema())
