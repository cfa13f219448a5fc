"""Who calls: signed tokens, and wrk scripts that send them."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

SECRET = "a-secret-of-the-load-test-that-is-long-enough"
TIERS = ("free", "pro", "pro", "enterprise")
PATH = "/api/v1/content/1"
REQUIRED_PATH = "/api/v1/user/profile"


def token(subject: str, tier: str, *, seconds: int = 3600) -> str:
    """An HS256 token, signed by hand: a million of them take seconds instead of a minute."""
    claims = {"sub": subject, "tier": tier, "exp": int(time.time()) + seconds}
    signed = f"{_HEADER}.{_text(json.dumps(claims, separators=(',', ':')).encode())}"
    return f"{signed}.{_text(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_HEADER = _text(b'{"alg":"HS256","typ":"JWT"}')


def five_callers() -> list[str | None]:
    """Four verified callers in three tiers, and an anonymous one: None."""
    return [*(token(f"user-{index}", tier) for index, tier in enumerate(TIERS)), None]


def script_in_turn(folder: Path, tokens: Sequence[str | None], path: str = PATH, name: str = "callers") -> Path:
    """A wrk script in which each request is the next caller's."""
    lines = [_format(path, token) for token in tokens]
    return _written(
        folder / f"{name}.lua",
        "local requests, next",
        "function init()",
        "  requests, next = {",
        *(f"    {line}," for line in lines),
        "  }, 0",
        "end",
        "function request()",
        "  next = next % #requests + 1",
        "  return requests[next]",
        "end",
    )


def _format(path: str, token: str | None) -> str:
    headers = "{}" if token is None else f'{{["Authorization"] = "Bearer {token}"}}'
    return f'wrk.format("GET", "{path}", {headers})'


def _written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def script_at_random(folder: Path, tokens: Iterable[str], path: str = PATH, name: str = "crowd") -> Path:
    """A wrk script in which each request is a random caller's, read from a file with one width for all lines."""
    listed = list(tokens)
    width = max(map(len, listed))
    crowd = folder / f"{name}.txt"
    crowd.write_text("".join(f"{token:<{width}}" for token in listed))
    return _written(
        folder / f"{name}.lua",
        f"local WIDTH, COUNT, PATH = {width}, {len(listed)}, '{path}'",
        f"local crowd = io.open('{crowd}', 'rb')",
        "function init() math.randomseed(os.time()) end",
        "function request()",
        "  crowd:seek('set', WIDTH * math.random(0, COUNT - 1))",
        "  return 'GET ' .. PATH .. ' HTTP/1.1\\r\\nHost: gateway\\r\\nAuthorization: Bearer '",
        "    .. crowd:read(WIDTH):gsub(' +$', '') .. '\\r\\n\\r\\n'",
        "end",
    )
