"""route_settings.lua: what the control plane told of a route."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.lua.support.worker import Worker, python

SETTINGS = Worker("route_settings")
NAMES = st.text(st.characters(max_codepoint=255, exclude_characters="=\n"), min_size=1, max_size=6)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=9)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5))
def test_each_line_is_a_setting(settings: dict[str, str]) -> None:
    """A value is text up to the end of its line, equals signs included."""
    assert python(SETTINGS.of(SETTINGS.stream({}, settings))) == settings


def test_a_route_without_settings() -> None:
    """Health and errors have none."""
    assert SETTINGS.of(SETTINGS.stream({})) is None


def test_a_text_is_read_once() -> None:
    """Requests of the same route share what was read, until there are too many texts."""
    worker = Worker("route_settings")
    same = worker.lua.eval("function(a, b) return rawequal(a, b) end")
    first = worker.of(worker.stream({}, {"auth": "required"}))

    assert same(first, worker.of(worker.stream({}, {"auth": "required"})))
    for number in range(10_001):
        worker.of(worker.stream({}, {"counter": str(number)}))
    again = worker.of(worker.stream({}, {"auth": "required"}))
    assert not same(first, again)
    assert python(again) == {"auth": "required"}
