"""One gateway for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.resilience.place import FullBacklog, Place, the_document
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One gateway for this file: tests leave its services as they found them, or use some of their own."""
    with ExitStack() as running:
        one, other, pooled = (running.enter_context(Upstream(name)) for name in ("one", "other", "pooled"))
        full = running.enter_context(FullBacklog())
        document = the_document(one.url, other.url, pooled.url, full.url)
        directory: Path = tmp_path_factory.mktemp("resilience") / "run"
        gateway = running.enter_context(Gateway(directory, document=document))
        yield Place(gateway, one, other, pooled, document)
