"""What a scrape shows."""

from __future__ import annotations

from prometheus_client import generate_latest

from authz_service.errors import Reason
from authz_service.metrics import Metrics


def test_decisions_and_key_sets_are_samples() -> None:
    """Counted by outcome and reason; a key set's age while it is in use."""
    metrics = Metrics()
    metrics.decided(False, Reason.EXPIRED)
    metrics.decided(False, Reason.EXPIRED)

    def age() -> float:
        return 5.0

    metrics.jwks.watch("idp", age)
    text = generate_latest(metrics.registry).decode()
    assert 'mgw_authz_decisions_total{outcome="deny",reason="expired"} 2.0' in text
    assert 'mgw_authz_jwks_age_seconds{provider="idp"} 5.0' in text

    metrics.jwks.watch("idp", lambda: 6.0)
    metrics.jwks.forget("idp", age)
    assert 'mgw_authz_jwks_age_seconds{provider="idp"} 6.0' in generate_latest(metrics.registry).decode()


def test_every_reason_is_a_safe_label() -> None:
    """Lower case words, and not many of them."""
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in Reason)
    assert len(Reason) < 40
