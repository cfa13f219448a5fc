"""The texts below fields: of models, of dataclasses, and of what they inherit."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from controlplane.config.service_model import Retries, ServiceRetries
from controlplane.reference.docstrings import field_texts
from controlplane.settings import Settings

LOOSE = 1
"""A text below a name of the module."""


class Plain(BaseModel):
    """A model."""

    told: int = 1
    """What it is."""
    silent: int = 2
    long: str = "a"
    """It goes on over
    several lines, of which each
    has its place.
    """
    """And this is below a text, which is no field."""
    number: int = 3
    4  # noqa: B018 (what stands below is no text)
    untyped = 5  # type: ignore[misc,unused-ignore] # a field has a type
    """Of no field."""

    model_config = {"ignored_types": (int,)}

    def method(self) -> int:
        """Of a method."""
        inner: int = 6
        """Of a variable."""
        return inner


class Inherits(Plain):
    """Another, with all that the first one has."""

    told: int = 7
    """What it is here."""
    own: int = 8
    """Its own."""


class KeepsSilent(Inherits):
    """One that changes a default and says nothing new of it."""

    told: int = 9


@dataclass(frozen=True)
class Values:
    """A dataclass."""

    one: int = 1
    """Of one."""


def test_a_text_is_what_stands_below_a_field() -> None:
    """Directly below, as text; on one line, however it was written."""
    assert field_texts(Plain) == {
        "told": "What it is.",
        "long": "It goes on over several lines, of which each has its place.",
    }


def test_texts_are_inherited() -> None:
    """A class has those of its bases, and its own in their place where it says something itself."""
    assert field_texts(Inherits) == {**field_texts(Plain), "told": "What it is here.", "own": "Its own."}
    assert field_texts(KeepsSilent) == field_texts(Inherits)


def test_dataclasses_have_texts_too() -> None:
    """Settings are some."""
    assert field_texts(Values) == {"one": "Of one."}
    assert field_texts(Settings)["api_listen"].startswith("Where it serves the operator API")


def test_a_class_without_a_source_has_none() -> None:
    """What is built in, or was made of nothing, says nothing."""
    assert field_texts(int) == {}
    assert field_texts(type("Made", (), {})) == {}
    assert field_texts(type("Made", (Plain,), {"__module__": __name__})) == field_texts(Plain)


def test_what_a_route_retries_is_told_of_a_service_too() -> None:
    """Of the real models: one that takes all from another, and adds a key."""
    assert field_texts(ServiceRetries).items() > field_texts(Retries).items()
    assert set(field_texts(ServiceRetries)) == set(ServiceRetries.model_fields)
