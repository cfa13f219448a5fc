"""What every store of revisions promises. A further store joins by one more line in STORES."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import RevisionConflict
from controlplane.store.base import ConfigStore, Revision
from controlplane.store.memory import MemoryStore

Make = Callable[[Path], ConfigStore]
STORES: dict[str, Make] = {"memory": lambda _folder: MemoryStore()}
"""Each is empty, and may keep what it has in a folder of its own."""

every_store = pytest.mark.parametrize("make", list(STORES.values()), ids=list(STORES))

WORDS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=200)
REVISIONS = st.builds(
    Revision,
    number=st.just(1),
    text=WORDS,
    media_type=st.sampled_from(["application/yaml", "application/json"]),
    author=WORDS,
    reason=WORDS,
    at=st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)),
)


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ConfigStore:
    make: Make = request.param
    return make(tmp_path)


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


@every_store
@given(REVISIONS)
def test_a_revision_comes_back_as_it_was_saved(make: Make, revision: Revision) -> None:
    """Every character of the text, of who and of why, and the time to the microsecond."""
    with TemporaryDirectory() as folder:
        store = make(Path(folder))
        asyncio.run(store.save(revision))
        assert asyncio.run(store.current()) == revision


async def test_a_large_document_comes_back(store: ConfigStore) -> None:
    """As large as the API takes one."""
    text = "# ü\n" * (8 * 1024 * 1024 // 5)

    await store.save(a_revision(1, text))

    current = await store.current()
    assert current is not None
    assert current.text == text


@pytest.mark.parametrize("number", [0, 1, 2, 4, -1])
async def test_revisions_are_counted_without_gaps(store: ConfigStore, number: int) -> None:
    """A number that does not follow the newest is a conflict that names both, and changes nothing."""
    await store.save(a_revision(1))
    await store.save(a_revision(2))

    with pytest.raises(RevisionConflict) as caught:
        await store.save(a_revision(number, "late"))

    assert (caught.value.expected, caught.value.current) == (number - 1, 2)
    assert str(caught.value) == f"revision {number - 1} was expected, but revision 2 is current"
    assert await store.current() == a_revision(2)


async def test_the_first_revision_is_number_one(store: ConfigStore) -> None:
    """An empty store takes number 1 and no other, and says that 0 is current."""
    with pytest.raises(RevisionConflict) as caught:
        await store.save(a_revision(2))

    assert caught.value.current == 0
    assert await store.current() is None
    await store.save(a_revision(1))


@every_store
@given(st.lists(st.integers(-1, 6), max_size=12))
def test_whatever_is_tried_the_numbers_stay_whole(make: Make, numbers: list[int]) -> None:
    """Of any attempts, those are kept whose number follows, and the last of them is current."""

    async def attempt(store: ConfigStore) -> tuple[Revision | None, Revision | None]:
        newest = None
        for position, number in enumerate(numbers):
            revision = a_revision(number, f"attempt: {position}")
            if number == (newest.number if newest else 0) + 1:
                await store.save(revision)
                newest = revision
            else:
                with pytest.raises(RevisionConflict):
                    await store.save(revision)
        return newest, await store.current()

    with TemporaryDirectory() as folder:
        newest, current = asyncio.run(attempt(make(Path(folder))))

    assert current == newest


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


@every_store
async def test_two_stores_share_nothing(make: Make, tmp_path: Path) -> None:
    """What one was given, another of a folder of its own does not know."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    one, other = map(make, folders)

    await one.save(a_revision(1))

    assert await other.current() is None
