"""The run directory: where its files are, `run.json`, the secret, and the lock of the one supervisor."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TRIES = 5


@dataclass(frozen=True)
class RunDirectory:
    """The paths in one gateway's directory."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def secret(self) -> Path:
        return self.path / "jwt_secret"

    @property
    def lock(self) -> Path:
        return self.path / "supervisor.lock"

    @property
    def control(self) -> Path:
        return self.path / "control.sock"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def state(self, name: str) -> Path:
        """A part's own folder."""
        return self.path / name

    def create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)  # a leftover of another mode
        file.write(text)
    new.replace(path)


def read_run(directory: RunDirectory) -> dict[str, Any] | None:
    """What `run.json` says; None where there is none."""
    try:
        run: dict[str, Any] = json.loads(directory.run_json.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return run


def write_run(directory: RunDirectory, run: dict[str, Any]) -> None:
    write_private(directory.run_json, json.dumps(run, indent=2) + "\n")


def read_secret(directory: RunDirectory) -> str | None:
    try:
        return directory.secret.read_text().strip() or None
    except OSError:
        return None


def make_secret(directory: RunDirectory) -> str:
    secret = secrets.token_urlsafe(48)
    write_private(directory.secret, secret + "\n")
    return secret


class Lock:
    """Held for as long as a supervisor lives; the kernel lets go of it however that ends. It holds the pid."""

    def __init__(self, directory: RunDirectory) -> None:
        self._path = directory.lock
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Try to become the supervisor."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        for _ in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.01)  # `holder` takes the lock for a moment when it asks
                continue
            os.ftruncate(descriptor, 0)
            self._descriptor = descriptor
            return True
        os.close(descriptor)
        return False

    def sign(self) -> None:
        """Write down who holds the lock: us, once we are the process that stays."""
        assert self._descriptor is not None
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> int | None:
        """The living supervisor's pid; 0 where it has not signed yet; None where there is none."""
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return int(os.pread(descriptor, 20, 0).strip() or 0)
        finally:
            os.close(descriptor)
        return None
