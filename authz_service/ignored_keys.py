"""Tells the log which members of a key set are not used, once for each change and not at each reading."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from service_kit.jwk import UnusableKey

log = structlog.get_logger()


class IgnoredKeys:
    """What was said of each provider's key set."""

    def __init__(self) -> None:
        self._said: dict[str, frozenset[UnusableKey]] = {}

    def note(self, provider: str, ignored: Iterable[UnusableKey]) -> None:
        """Log those that were not ignored at the last reading."""
        now = frozenset(ignored)
        for key in sorted(now - self._said.get(provider, frozenset()), key=lambda key: (key.kid, key.why)):
            log.warning("jwks.key_ignored", provider=provider, kid=key.kid, why=key.why)
        self._said[provider] = now

    def keep_only(self, providers: Iterable[str]) -> None:
        """Forget providers that there are no longer."""
        names = frozenset(providers)
        self._said = {name: said for name, said in self._said.items() if name in names}
