"""Which values of a path or query the log does not show: what lua/mask.lua is told."""

from __future__ import annotations

import re

from controlplane.config.model import GatewayConfig
from controlplane.translate.lua_literal import Literal

SECRET_WORDS = (
    *("token", "secret", "password", "passwd", "passphrase", "passcode", "credential", "assertion", "signature"),
    *("authorization", "bearer", "cookie", "session", "verifier", "jwt", "saml"),
    *("apikey", "appkey", "authkey", "accesskey", "privatekey", "secretkey", "subscriptionkey", "passkey"),
    *("accesscode", "activationcode", "authcode", "backupcode", "logincode", "recoverycode", "resetcode"),
    *("onetimecode", "verificationcode"),
)
"""A parameter with such a word anywhere in its name, as in `X-Amz-Security-Token`, is a credential."""

SECRET_NAMES = (
    *("auth", "code", "key", "pass", "pw", "pwd", "psk", "pin", "otp", "totp", "sid", "sig", "sign", "hmac", "ticket"),
    *("devicecode", "usercode", "mfacode", "otpcode", "smscode", "userpass", "xauth", "phpsessid", "csrf", "xsrf"),
    "wresult",
)
"""So is one with exactly such a name: `code`, but not `country_code`."""

SUSPICIOUS_PATH = r""".*([?%="'+]|e[yw][A-DI-Lk-r0-3]|ZXlK).*"""
"""What a path needs at least for the script to mask any of it, or to have a query (RE2). The access log reads what the
script says of such a path alone."""


def constants(config: GatewayConfig) -> dict[str, Literal]:
    """What the script is told. Names are compared without regard to case, `-` and `_`."""
    own = (*config.log.mask_parameters, config.auth.api_key_header)
    return {
        "query": config.log.query,
        "secret_words": SECRET_WORDS,
        "secret_names": frozenset((*SECRET_NAMES, *map(bare, own))),
    }


def bare(name: str) -> str:
    """A name as names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
