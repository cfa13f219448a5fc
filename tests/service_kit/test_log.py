"""The log's lines."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from service_kit.log import configure_log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_is_json_with_its_component(capsys: pytest.CaptureFixture[str]) -> None:
    """Event, fields, level, time in UTC; a traceback where there is one."""
    configure_log("info", "authz")
    log = structlog.get_logger()
    log.debug("unseen")
    log.info("policy.enforced", providers=["p"])
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("check.crashed")

    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["event"], first["level"], first["component"], first["providers"]) == (
        "policy.enforced",
        "info",
        "authz",
        ["p"],
    )
    assert first["timestamp"].endswith("Z")
    assert "ValueError: broken" in second["exception"]
