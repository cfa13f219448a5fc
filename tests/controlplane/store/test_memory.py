"""What every store of revisions promises. A further store joins by one more line in STORES."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from controlplane.errors import RevisionConflict
from controlplane.store.base import ConfigStore, Revision
from controlplane.store.memory import MemoryStore

STORES: dict[str, Callable[[], ConfigStore]] = {"memory": MemoryStore}


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest) -> ConfigStore:
    make: Callable[[], ConfigStore] = request.param
    return make()


def a_revision(number: int, text: str = "a: 1\n") -> Revision:
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    return Revision(number, text, "application/yaml", "editor", "because ü", at)


async def test_an_empty_store_has_no_revision(store: ConfigStore) -> None:
    """Nothing is current before something was saved."""
    assert await store.current() is None


async def test_the_newest_revision_is_current(store: ConfigStore) -> None:
    """What was saved comes back as it was."""
    await store.save(a_revision(1))
    await store.save(a_revision(2, "b: ü\r\n"))

    assert await store.current() == a_revision(2, "b: ü\r\n")


@pytest.mark.parametrize("number", [0, 1, 2, 4, -1])
async def test_revisions_are_counted_without_gaps(store: ConfigStore, number: int) -> None:
    """A number that does not follow the newest is a conflict that names both, and changes nothing."""
    await store.save(a_revision(1))
    await store.save(a_revision(2))

    with pytest.raises(RevisionConflict) as caught:
        await store.save(a_revision(number, "late"))

    assert (caught.value.expected, caught.value.current) == (number - 1, 2)
    assert await store.current() == a_revision(2)


async def test_the_first_revision_is_number_one(store: ConfigStore) -> None:
    """An empty store takes number 1 and no other."""
    with pytest.raises(RevisionConflict):
        await store.save(a_revision(2))

    await store.save(a_revision(1))


async def test_of_many_writers_one_wins(store: ConfigStore) -> None:
    """Of revisions with one number that are saved at once, exactly one is kept."""
    results = await asyncio.gather(
        *(store.save(a_revision(1, f"writer: {n}")) for n in range(20)), return_exceptions=True
    )

    assert results.count(None) == 1
    assert all(isinstance(result, RevisionConflict) for result in results if result is not None)
    current = await store.current()
    assert current is not None
    assert current.text == f"writer: {results.index(None)}"
