"""What to try on a demo gateway: a token a tier, and commands that show a 200, a 401, a 429 and a 404."""

from __future__ import annotations

from controlplane.local.tokens import mint

TIERS = ("free", "pro", "enterprise")
HINT_TTL_SECONDS = 24 * 3600


def demo_hints(gateway: str, jwt_secret: str) -> str:
    """Text for a terminal; every command in it can be pasted as it is."""
    tokens = {tier: mint(jwt_secret, f"demo-{tier}", tier, HINT_TTL_SECONDS) for tier in TIERS}
    lines = [
        f"The gateway is {gateway}. Tokens, good for 24 hours:",
        "",
        *(f"{tier.upper()}={token}" for tier, token in tokens.items()),
        "",
        "# 200: anybody may read content, and the upstream says what it received",
        f"curl -si {gateway}/api/v1/content/1",
        "# 200: a profile, for the caller whom the token names",
        f'curl -si -H "Authorization: Bearer $PRO" {gateway}/api/v1/user/profile',
        "# 401: a profile, for nobody",
        f"curl -si {gateway}/api/v1/user/profile",
        "# 404: no such route",
        f"curl -si {gateway}/api/v1/nowhere",
        "# 429: the free tier has 20 requests at once, then 10 a second",
        f'for i in $(seq 25); do curl -s -o /dev/null -w "%{{http_code}} " -H "Authorization: Bearer $FREE" '
        f"{gateway}/api/v1/content/1; done; echo",
        f'curl -si -H "Authorization: Bearer $FREE" {gateway}/api/v1/content/1',
    ]
    return "\n".join(lines) + "\n"
