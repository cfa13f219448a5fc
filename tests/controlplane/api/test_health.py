"""Health and metrics, which need no token."""

from __future__ import annotations

import pytest

from tests.support.operator_api import Api, is_problem


async def test_before_the_first_configuration(empty: Api) -> None:
    """Without a configuration there is nothing to read, and the gateway is neither well nor ready."""
    is_problem(await empty.call("GET", "/v1/config"), 503)
    assert (await empty.call("GET", "/health")).status_code == 503
    assert (await empty.call("GET", "/health/ready")).json()["ready"] is False
    assert (await empty.call("GET", "/health/live")).json() == {"status": "alive"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_needs_no_token(api: Api, method: str) -> None:
    """Health is for anyone; its states are those of the probes and breakers."""
    whole, ready = [await api.call(method, path, token=None) for path in ("/health", "/health/ready")]

    assert (whole.status_code, ready.status_code) == (200, 200)
    if method == "GET":
        assert whole.json()["status"] == "healthy"
        assert set(whole.json()["checks"]) == {"discovery", "sona", "sync", "auth"}


async def test_sick_services_show(api: Api) -> None:
    """With every critical service down the gateway is unhealthy; without authz it is not ready."""
    api.well = False

    whole, ready = [await api.call("GET", path, token=None) for path in ("/health", "/health/ready")]

    assert (whole.status_code, whole.json()["status"]) == (503, "unhealthy")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)


async def test_metrics(api: Api) -> None:
    """The process's metrics name the revision."""
    assert "mgw_config_revision 1.0" in (await api.call("GET", "/metrics")).text
