"""The operator API, before and after its first configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controlplane.publish import Change
from tests.support.operator_api import TEXT, Api


@pytest.fixture
async def empty() -> AsyncIterator[Api]:
    """An API before any configuration is in force."""
    api = Api()
    async with api.client:
        yield api


@pytest.fixture
async def api(empty: Api) -> Api:
    """An API with the default document as revision 1."""
    await empty.publisher.publish(Change(TEXT, "application/yaml", author="file", reason="", expected=None))
    return empty
