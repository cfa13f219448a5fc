"""Verified tokens by their text: two generations of a plain dict, so that a look-up costs one or two hashes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(slots=True)
class GenerationCache(Generic[Value]):
    """Bounded in entries and in text. An entry that nobody reads during a whole generation is dropped.

    It never holds more than `max_entries`, nor more than about `max_characters` of key text. It knows no expiry: the
    reader checks until when an entry holds.
    """

    max_entries: int = 10_000
    max_characters: int = 8 * 1024 * 1024
    _young: dict[Hashable, Value] = field(default_factory=dict)
    _old: dict[Hashable, Value] = field(default_factory=dict)
    _young_characters: int = 0

    def get(self, key: Hashable, characters: int) -> Value | None:
        """The value of `key`, or None. `characters` is the length of the key's text."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value, characters)
        return value

    def put(self, key: Hashable, value: Value, characters: int) -> None:
        """Keep `value`. A full young generation becomes the old one first, and the old one is dropped."""
        if 2 * len(self._young) >= self.max_entries or 2 * self._young_characters >= self.max_characters:
            self._old, self._young, self._young_characters = self._young, {}, 0
        self._young[key] = value
        self._young_characters += characters

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._young_characters = {}, {}, 0

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
