"""The models of the document, and where each stands."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from controlplane import config
from controlplane.config.fields import Model
from controlplane.config.model import Breaker, GatewayConfig, Limit, Provider, Retries, Route, ServiceRetries
from controlplane.reference.models import inner_models, models


class A(BaseModel):
    """One."""


class B(BaseModel):
    """Another."""


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (int, []),
        (None, []),
        (Any, []),
        (Literal["a"], []),
        (list[int], []),
        (dict[str, dict[str, Any]], []),
        (A, [(A, "")]),
        (A | None, [(A, "")]),
        (Optional[A], [(A, "")]),  # noqa: UP045 (as others write it)
        (A | B, [(A, ""), (B, "")]),
        (list[A], [(A, "[]")]),
        (list[list[A]], [(A, "[][]")]),
        (dict[str, A], [(A, ".NAME")]),
        (dict[A, B], [(B, ".NAME")]),
        (dict[str, list[A]], [(A, ".NAME[]")]),
        (Annotated[A, Field()], [(A, "")]),
        (Annotated[list[Annotated[A | None, Field()]], Field(min_length=1)], [(A, "[]")]),
        (dict[Annotated[str, Field(pattern="a")], A | list[B]], [(A, ".NAME"), (B, ".NAME[]")]),
    ],
    ids=str,
)
def test_the_models_in_a_type(annotation: Any, found: list[tuple[type[BaseModel], str]]) -> None:
    """With what is around each: a list, a mapping, or one in the other."""
    assert list(inner_models(annotation)) == found


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (GatewayConfig, ""),
        (Provider, "auth.providers[]"),
        (Limit, "limits.tiers.NAME"),
        (Route, "routes[]"),
        (Breaker, "services[].breaker"),
        (ServiceRetries, "services[].retries"),
        (Retries, "routes[].retries"),
    ],
)
def test_each_model_has_its_place(model: type[BaseModel], place: str) -> None:
    """By the keys that people write."""
    assert models()[model] == place


def test_a_key_that_is_a_word_of_python_is_written_as_in_the_document() -> None:
    """`global` is such a one."""
    assert "limits.global[]" in models().values()


def test_parents_come_first() -> None:
    """A reader meets each object where it is named, before it is told of."""
    places = list(models().values())

    for index, place in enumerate(places[1:], 1):
        parent = re.sub(r"(\[\]|\.NAME)+$", "", place).rpartition(".")[0]
        assert parent in places[:index], place


def defined() -> Iterator[type[Model]]:
    for module in pkgutil.iter_modules(config.__path__, f"{config.__name__}."):
        importlib.import_module(module.name)
    waiting = [Model]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        yield from (each for each in children if each.__module__.startswith(config.__name__))


def test_no_model_is_left_out() -> None:
    """Whatever the document's modules define is somewhere in it, unless it is there for others to build on."""
    lost = {each.__name__ for each in defined() if each not in models() and not each.__subclasses__()}

    assert lost == set()
