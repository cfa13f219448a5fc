"""Who has spent much: the replicas tell each other through the store, so that an outage finds them informed.

Without it a replica that has not seen a caller takes it for one that spent nothing. While all that a caller spent is
within one replica's share, that does no harm: each lets at most its share pass. So what matters is who is over a share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from ratelimit_service.counters.link import Link
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.scripts import Arguments, Script
from ratelimit_service.counters.tally import News
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.limits import CounterKey

EVERY_SECONDS = 0.4
"""What one replica tells, another knows after at most twice this."""
AT_ONCE = 200

RunScript = Callable[[Link, Script, Arguments], Awaitable[Any]]


class Reply(NamedTuple):
    """What the script replies."""

    store_now_us: int
    last: int
    news: list[tuple[CounterKey, News]]


class Digest:
    """One replica's part."""

    script = Script("digest.lua")

    def __init__(self, local: MemoryCounters, run_script: RunScript) -> None:
        self._local = local
        self._run_script = run_script
        self._read = 0

    def begin(self) -> None:
        """Another connection, and perhaps another store: read everything again."""
        self._read = 0

    async def exchange(self, link: Link, prefix: str) -> None:
        """Tell what is new here, and learn what is new elsewhere."""
        news = list(self._local.take_news().items())
        reply = await self._ask(link, prefix, news[:AT_ONCE])
        for at in range(AT_ONCE, len(news), AT_ONCE):
            reply = await self._ask(link, prefix, news[at : at + AT_ONCE])
        while len(reply.news) == AT_ONCE:
            reply = await self._ask(link, prefix, ())

    async def _ask(self, link: Link, prefix: str, news: Sequence[tuple[CounterKey, News]]) -> Reply:
        reply = read_digest(await self._run_script(link, self.script, digest_arguments(prefix, self._read, news)))
        self._read = reply.last
        self._local.learn(reply.news, reply.store_now_us)
        return reply


def digest_arguments(
    prefix: str, read: int, news: Sequence[tuple[CounterKey, News]], store_now_us: int = 0
) -> Arguments:
    """For digest.lua."""
    texts = ((f"{key.tag} {key.rule_name}", " ".join(map(str, item))) for key, item in news)
    keys = (f"{prefix}order", f"{prefix}news", f"{prefix}mark")
    return (3, *keys, store_now_us, read, AT_ONCE, *chain.from_iterable(texts))


def read_digest(reply: list[Any]) -> Reply:
    """The reply of digest.lua, by name. Raises CountersUnavailable where somebody else wrote into the digest."""
    store_now_us, last, *texts = reply
    pairs = zip(texts[::2], texts[1::2], strict=True)
    try:
        return Reply(store_now_us, last, [(_key(counter), _news(text)) for counter, text in pairs])
    except (ValueError, TypeError, AttributeError) as error:
        raise CountersUnavailable(f"the digest holds what is none: {error}") from error


def _key(counter: bytes) -> CounterKey:
    tag, _, name = counter.decode().partition(" ")
    return CounterKey(tag, name)


def _news(text: bytes) -> News:
    return News._make(map(int, text.split()))
