"""Programs that are installed with `go install`."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
"""What `go install` takes; .ci/run names the same."""


@cache
def go_tool(name: str) -> Path | None:
    """Where a program is: on PATH, or where `go install` puts it; None where it is not."""
    if found := shutil.which(name):
        return Path(found)
    if not shutil.which("go"):
        return None
    asked = subprocess.run(["go", "env", "GOBIN", "GOPATH"], capture_output=True, text=True, check=True).stdout
    gobin, gopath = asked.split("\n")[:2]
    path = Path(gobin or f"{gopath}/bin") / name
    return path if os.access(path, os.X_OK) else None
