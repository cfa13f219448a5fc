"""YAML within bounds: depth and number of values with aliases followed, and the place of what passes them."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service_kit.bounded_yaml import MAX_DEPTH, MAX_VALUES, compose
from service_kit.errors import YamlRejected
from tests.support.yaml_texts import alias_chain


def wide(values: int) -> str:
    """A mapping that stands for this many values: itself, ten lists of each `(values - 1) / 10` with themselves."""
    return f"a: &a [{','.join('x' * ((values - 1) // 10 - 1))}]\n" + "".join(f"b{n}: *a\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "message", "path"),
    [
        ("[" * (MAX_DEPTH + 1), "nested deeper than 32 levels", ()),
        (alias_chain(MAX_DEPTH), "nested deeper than 32 levels", ()),
        (wide(MAX_VALUES + 10), "more than 500000 values", ()),
        ("a: {b: &x [1, *x]}", "an alias that contains itself", ("a", "b", 1)),
        ("&x [*x]", "an alias that contains itself", (0,)),
        ("? &x [*x]\n: 1", "an alias that contains itself", (0,)),
    ],
    ids=["nested", "chain", "wide", "itself", "root", "key"],
)
def test_what_passes_the_bounds_is_told_with_its_place(text: str, message: str, path: tuple[str | int, ...]) -> None:
    """Before anything recurses over it, or visits what an alias stands for."""
    with pytest.raises(YamlRejected, match=message) as rejected:
        compose(text)

    assert rejected.value.path == path


@pytest.mark.parametrize(
    "text",
    ["[" * MAX_DEPTH + "]" * MAX_DEPTH, alias_chain(MAX_DEPTH - 1), wide(MAX_VALUES)],
    ids=["nested", "chain", "wide"],
)
def test_what_is_within_the_bounds_is_read(text: str) -> None:
    """The last depth and the last number of values that are allowed."""
    assert compose(text) is not None


@given(st.text())
def test_any_text_is_read_or_rejected_with_a_place(text: str) -> None:
    """Nothing else is raised."""
    try:
        node = compose(text)
    except YamlRejected as rejected:
        assert rejected.line >= 1
        assert rejected.column >= 1
    else:
        assert node is None or isinstance(node, yaml.Node)
