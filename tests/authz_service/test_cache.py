"""The two-generation cache."""

from __future__ import annotations

from authz_service.cache import GenerationCache


def test_it_is_bounded_in_entries() -> None:
    """However many are put, no more than the bound stay."""
    cache = GenerationCache[int](max_entries=100)
    for number in range(1_000):
        cache.put(number, number, 1)

    assert len(cache) <= 100
    assert cache.get(999, 1) == 999
    assert cache.get(0, 1) is None


def test_it_is_bounded_in_text() -> None:
    """A few very long keys count as much as many short ones."""
    cache = GenerationCache[int](max_entries=1_000, max_characters=1_000)
    for number in range(100):
        cache.put(number, number, 100)

    assert len(cache) <= 10


def test_what_is_asked_for_stays() -> None:
    """A look-up carries an entry into the young generation."""
    cache = GenerationCache[str](max_entries=10)
    cache.put("kept", "value", 1)
    for number in range(100):
        cache.put(number, "other", 1)
        assert cache.get("kept", 1) == "value"


def test_clear_forgets_both_generations() -> None:
    """Nothing of either is found again."""
    cache = GenerationCache[int](max_entries=4)
    for number in range(4):
        cache.put(number, number, 1)
    cache.clear()

    assert len(cache) == 0
    assert all(cache.get(number, 1) is None for number in range(4))
