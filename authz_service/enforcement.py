"""Turns policy documents into what is enforced, and swaps it whole. A rejected document changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from authz_service.decision import API_KEY_PROVIDER, Policy
from authz_service.errors import PolicyRejected
from authz_service.ignored_keys import IgnoredKeys
from authz_service.jwks import Fetch, JwksTimes, RemoteKeys, last_good_path
from authz_service.keys import KeySet, VerifyingKey, pem_key, read_key_set, secret_key
from authz_service.metrics import Metrics
from authz_service.policy import PolicyDocument, ProviderDocument, SecretDocument
from authz_service.tokens import ANONYMOUS, Keys, Provider, Revocations, Verified, Verifier
from service_kit.jwk import UnusableKey
from service_kit.jwks_fetch import Copy, fetch_key_set

log = structlog.get_logger()

MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Enforced:
    """All that one request is decided by. A request reads it once, at its start."""

    policy: Policy
    verifier: Verifier
    document: PolicyDocument
    files_digest: str


class Enforcement:
    """Owns the policy in force and the remote key sets that it uses.

    Secrets are read from `environ`, and fetched key sets are kept in `state_dir`. `on_swap` is called after each swap.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        metrics: Metrics,
        *,
        state_dir: Path | None = None,
        times: JwksTimes | None = None,
        on_swap: Callable[[], None] = lambda: None,
    ) -> None:
        self.current: Enforced | None = None
        self._environ, self._metrics, self._state_dir = environ, metrics, state_dir
        self._times = times or JwksTimes()
        self._remote: dict[tuple[str, ...], RemoteKeys] = {}
        self._ignored = IgnoredKeys()
        self._closing: set[asyncio.Task[None]] = set()
        self._on_swap = on_swap
        metrics.cached_tokens.set_function(lambda: self.current.verifier.cached_tokens if self.current else 0)

    def offer(self, read: Callable[[], PolicyDocument]) -> PolicyRejected | None:
        """Enforce the document that `read` returns. Where it is rejected, return why; the old one stays in force."""
        try:
            self.enforce(read())
        except PolicyRejected as rejection:
            self._metrics.policy_rejected()
            log.warning("policy.refused", problem=str(rejection))
            return rejection
        return None

    def enforce(self, document: PolicyDocument) -> None:
        """Swap to `document`. Raises PolicyRejected.

        Where the document and its files are as before, this does nothing, and cached tokens stay.
        """
        digest = _digest(document.files())
        current = self.current
        if current is not None and current.document == document and current.files_digest == digest:
            return
        remote = {key: self._remote_keys(key, each) for key, each in _remote_providers(document)}
        self._swap(self._assemble(document, digest, remote), remote)

    def recheck_files(self) -> None:
        """Read the policy's secret and key files again. Where one is bad, the old keys stay in force."""
        if (current := self.current) is not None:
            self.offer(lambda: current.document)

    async def close(self) -> None:
        """Stop fetching key sets."""
        for keys in self._remote.values():
            await keys.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _swap(self, enforced: Enforced, remote: dict[tuple[str, ...], RemoteKeys]) -> None:
        old, self._remote = self._remote, remote
        self.current = enforced
        for key, provider in _remote_providers(enforced.document):
            if key in old:
                old[key].tune(self._fetch(provider), self._times_of(provider))
            else:
                remote[key].start()
        for key, keys in old.items():
            if key not in remote:
                task = asyncio.create_task(keys.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._ignored.keep_only(provider.name for provider in enforced.document.providers)
        self._metrics.policy_enforced()
        log.info("policy.enforced", providers=[provider.name for provider in enforced.document.providers])
        self._on_swap()

    def _remote_keys(self, key: tuple[str, ...], provider: ProviderDocument) -> RemoteKeys:
        if key in self._remote:
            return self._remote[key]
        uri = provider.jwks_uri or ""
        return RemoteKeys(
            provider.name,
            frozenset(provider.algorithms),
            self._fetch(provider),
            self._forget_tokens,
            self._metrics.jwks,
            times=self._times_of(provider),
            ignored=self._ignored,
            last_good=last_good_path(self._state_dir, provider.name, uri) if self._state_dir is not None else None,
        )

    def _fetch(self, provider: ProviderDocument) -> Fetch:
        return _Fetch(provider.jwks_uri or "", provider.ca_file, self._times.fetch_seconds)

    def _times_of(self, provider: ProviderDocument) -> JwksTimes:
        return replace(self._times, refresh_seconds=provider.jwks_refresh_seconds)

    def _local_keys(self, provider: ProviderDocument) -> KeySet:
        keys, ignored = local_keys(provider, self._environ)
        self._ignored.note(provider.name, ignored)
        if not keys:
            raise PolicyRejected("the key set holds no usable key")
        return keys

    def _forget_tokens(self) -> None:
        if self.current is not None:
            self.current.verifier.forget()

    def _assemble(
        self, document: PolicyDocument, digest: str, remote: Mapping[tuple[str, ...], RemoteKeys]
    ) -> Enforced:
        tiers = frozenset(document.tiers)
        revocations = _revocations(document)
        providers = []
        for provider in document.providers:
            try:
                keys: Keys
                keys = remote[_remote_key(provider)] if provider.jwks_uri else self._local_keys(provider)
            except PolicyRejected as rejection:
                problem = f"provider {provider.name}: {rejection}"
                raise PolicyRejected(problem, rejection.missing_secret) from rejection
            providers.append(_provider(provider, keys))
        # Without API keys the header is no credential of ours, and it may be one of the upstream's.
        header = document.api_key_header if document.api_keys else None
        policy = Policy(
            api_key_header=header.lower() if header is not None else None,
            api_keys=_api_keys(document, revocations),
            max_failures=int(document.max_failures_per_minute),
        )
        return Enforced(policy, Verifier(providers, tiers, revocations, epoch=document.epoch), document, digest)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One way to fetch a key set. Two that are the same are equal."""

    uri: str
    ca_file: str | None
    timeout_seconds: float

    async def __call__(self, known: Copy | None) -> Copy:
        return await fetch_key_set(self.uri, known, ca_file=self.ca_file, timeout_seconds=self.timeout_seconds)


def local_keys(provider: ProviderDocument, environ: Mapping[str, str]) -> tuple[KeySet, list[UnusableKey]]:
    """The keys of a provider without a `jwks_uri`, and members of its key set that are not used.

    Raises PolicyRejected.
    """
    algorithms = frozenset(provider.algorithms)
    if provider.secrets:
        return KeySet([_secret(secret, algorithms, environ) for secret in provider.secrets]), []
    if provider.pem:
        key = pem_key(provider.pem, algorithms)
        if not key.algorithms:
            raise PolicyRejected(f"pem fits none of {', '.join(provider.algorithms)}")
        return KeySet([key]), []
    source = provider.jwks if provider.jwks_file is None else read_file(provider.jwks_file)
    return read_key_set(source or {}, algorithms, with_secrets=provider.jwks_file is not None)


def read_file(path: str) -> bytes:
    """The contents, at most MAX_FILE_BYTES of them. Raises PolicyRejected."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PolicyRejected(f"{path}: {error.strerror or type(error).__name__}") from error
    if len(content) > MAX_FILE_BYTES:
        raise PolicyRejected(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return content


def _secret(secret: SecretDocument, algorithms: Iterable[str], environ: Mapping[str, str]) -> VerifyingKey:
    if secret.env is not None:
        value = environ.get(secret.env, "").encode("utf-8", "surrogateescape")
        if not value:
            raise PolicyRejected(f"{secret.env} is not set in the environment of the authz service", secret.env)
        return secret_key(value, secret.kid, algorithms, secret.env)
    path = secret.file or ""
    return secret_key(read_file(path).rstrip(b"\r\n"), secret.kid, algorithms, path)


def _provider(document: ProviderDocument, keys: Keys) -> Provider:
    return Provider(
        name=document.name,
        algorithms=frozenset(document.algorithms),
        keys=keys,
        issuer=document.issuer,
        audiences=frozenset(document.audiences),
        leeway_seconds=document.leeway_seconds,
        subject_claim=document.claims.subject,
        tier_claim=document.claims.tier,
        scopes_claim=document.claims.scopes,
        default_tier=document.default_tier,
        denies_bad_tokens=document.on_bad_token == "refuse",
    )


def _revocations(document: PolicyDocument) -> Revocations:
    subjects: dict[tuple[str, str], float] = {}
    for each in document.revocations.subjects:
        key = (each.provider, each.subject)
        subjects[key] = max(each.issued_before, subjects.get(key, each.issued_before))
    return Revocations(frozenset(document.revocations.jti), subjects)


def _api_keys(document: PolicyDocument, revocations: Revocations) -> dict[bytes, Verified]:
    """The keys that are not revoked. An unknown tier is `anonymous`, as in tokens."""
    return {
        bytes.fromhex(key.sha256): Verified(
            API_KEY_PROVIDER, key.subject, key.tier if key.tier in document.tiers else ANONYMOUS, until=float("inf")
        )
        for key in document.api_keys
        if not revocations.revokes(API_KEY_PROVIDER, key.subject, None, None)
    }


def _remote_providers(document: PolicyDocument) -> list[tuple[tuple[str, ...], ProviderDocument]]:
    return [(_remote_key(provider), provider) for provider in document.providers if provider.jwks_uri]


def _remote_key(provider: ProviderDocument) -> tuple[str, ...]:
    """What identifies a fetched key set. Everything else of a provider may change without another fetch."""
    return (provider.name, provider.jwks_uri or "", *sorted(provider.algorithms))


def _digest(paths: Iterable[str]) -> str:
    """Over the contents, so that other changes in a directory are no change of the policy."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        try:
            content = read_file(path)
        except PolicyRejected:
            content = b""
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
