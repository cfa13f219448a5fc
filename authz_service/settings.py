"""How this process runs: the environment, read once and checked whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError, model_validator

from service_kit.errors import StartFailed

SECRET = "JWT_SECRET"
MIN_SECRET_BYTES = 32
HOW_TO_MAKE_ONE = f"for example: export {SECRET}=$(openssl rand -base64 48)"

Address = Annotated[str, StringConstraints(pattern=r"^(unix:.+|.+:[0-9]{1,5})$")]
TcpAddress = Annotated[str, StringConstraints(pattern=r"^.+:[0-9]{1,5}$")]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)

    listen: Address = "127.0.0.1:9001"
    metrics_listen: TcpAddress | None = None
    controlplane: Address | None = None
    node_id: Annotated[str, StringConstraints(min_length=1, max_length=128)] = "authz-0"
    state_dir: Path | None = None
    policy_file: Path | None = None
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = "info"
    transport: Literal["native", "grpcio"] = "native"
    drain_seconds: float = 10.0
    is_secretless: bool = False

    @model_validator(mode="after")
    def has_a_policy_source(self) -> Self:
        if self.controlplane is None and self.policy_file is None:
            raise ValueError("no policy: set MGW_CONTROLPLANE to host:port or MGW_POLICY_FILE to a path")
        return self

    @property
    def kept_policy(self) -> Path | None:
        return self.state_dir / "authz-policy.json" if self.state_dir is not None else None

    def masked(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """What may be printed: of a secret, only whether there is one."""
        return self.model_dump(mode="json") | {SECRET.lower(): "***" if environ.get(SECRET) else None}


VARIABLES: Mapping[str, str] = {
    "MGW_LISTEN": "listen",
    "MGW_METRICS_LISTEN": "metrics_listen",
    "MGW_CONTROLPLANE": "controlplane",
    "MGW_NODE_ID": "node_id",
    "MGW_STATE_DIR": "state_dir",
    "MGW_POLICY_FILE": "policy_file",
    "MGW_TRANSPORT": "transport",
    "LOG_LEVEL": "log_level",
    "AUTHZ_DRAIN_SECONDS": "drain_seconds",
    "AUTHZ_SECRETLESS": "is_secretless",
}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """An empty variable is an absent one."""
    given = {field: environ[name] for name, field in VARIABLES.items() if environ.get(name)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        names = {field: name for name, field in VARIABLES.items()}
        problems = (": ".join([*(names[str(at)] for at in e["loc"][:1]), e["msg"]]) for e in error.errors())
        raise StartFailed("; ".join(problems).replace("Value error, ", "")) from None


def check_secret(environ: Mapping[str, str]) -> bool:
    """Whether there is a secret. One that is too short is refused at once, whatever the policy will say."""
    secret = environ.get(SECRET, "")
    size = len(secret.encode("utf-8", "surrogateescape"))
    if 0 < size < MIN_SECRET_BYTES:
        raise StartFailed(f"{SECRET} has {size} bytes: export at least {MIN_SECRET_BYTES}, {HOW_TO_MAKE_ONE}")
    return size > 0


def secret_missing() -> StartFailed:
    return StartFailed(
        f"{SECRET} is not set: export at least {MIN_SECRET_BYTES} random bytes, {HOW_TO_MAKE_ONE}"
        " (AUTHZ_SECRETLESS=1 where no provider needs it)"
    )
