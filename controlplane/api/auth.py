"""Who may operate the gateway: bearer tokens, each with a role."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from controlplane.api.errors import ApiError


class Role(IntEnum):
    """What a token allows; each role allows all that the ones before it do."""

    VIEWER = 1
    EDITOR = 2
    ADMIN = 3


class Operators:
    """The tokens and their roles."""

    def __init__(self, tokens: Mapping[str, Role]) -> None:
        self._tokens = {token.encode(): role for token, role in tokens.items()}

    def role(self, token: str) -> Role | None:
        """The role of a token, compared in constant time; None for an unknown one."""
        given = token.encode("utf-8", "surrogateescape")
        matches = [role for known, role in self._tokens.items() if hmac.compare_digest(known, given)]
        return max(matches, default=None)


_bearer = HTTPBearer(auto_error=False, description="An operator's token")


def require(role: Role) -> Callable[..., str]:
    """A dependency that answers 401 without a valid token and 403 with one that allows too little."""

    def dependency(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> str:
        operators: Operators = request.app.state.operators
        held = operators.role(credentials.credentials) if credentials else None
        if held is None:
            raise ApiError(401, "an operator's token is required", {"WWW-Authenticate": "Bearer"})
        if held < role:
            raise ApiError(403, f"this needs the role {role.name.lower()}, the token has {held.name.lower()}")
        return held.name.lower()

    return dependency
