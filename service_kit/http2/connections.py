"""The connections of one server: how many there may be, and which one goes where there are too many."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

ENOUGH_FILES = 65_536
OTHER_FILES = 1_280
"""Left for the store, the control plane and metrics, and for connections that are accepted and not counted yet."""
FEWEST = 64
LOOKS = 64
IDLE_SECONDS = 1.0
"""Envoy's connections are seldom idle for so long where there is traffic, and it makes a new one when it needs it."""


class Connected(Protocol):
    """What is asked of a connection here."""

    def idle_seconds(self) -> float:
        """How long it has had no calls and sent nothing, as far as that is known from asking now and then."""

    def let_go(self) -> None:
        """Say goodbye and close."""


C = TypeVar("C", bound=Connected)


class Connections(Generic[C]):
    """At most `most` connections. A new one takes the place of one that is idle, so that idle ones lock nobody out."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.may_idle = IDLE_SECONDS
        self._all: OrderedDict[C, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._all))

    def add(self, connection: C) -> None:
        """Keep a new connection, and let go of another one where there are too many."""
        self._all[connection] = None
        if len(self._all) > self.most:
            self._make_room(connection)

    def discard(self, connection: C) -> None:
        """It is closed."""
        self._all.pop(connection, None)

    def _make_room(self, newest: C) -> None:
        """The first that was idle for long goes, and the new one where none is found. Who works moves behind others."""
        chosen = newest
        for _ in range(LOOKS):
            oldest = next(iter(self._all))
            if oldest.idle_seconds() > self.may_idle:
                chosen = oldest
                break
            self._all.move_to_end(oldest)
        del self._all[chosen]
        chosen.let_go()


def allow_files() -> int:
    """Raise this process's limit of open files as far as it may. Returns how many connections it leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    files = ENOUGH_FILES if soft == resource.RLIM_INFINITY else min(soft, ENOUGH_FILES)
    return max(FEWEST, files // 2, files - OTHER_FILES)
