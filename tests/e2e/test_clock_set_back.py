"""An Envoy's clock is set back by an hour: callers that were over their limit wait no longer than the limit says."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, default_document, token, unique
from tests.support.waiting import eventually

PATH = "/api/v1/content/1"
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile long *ahead;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
  real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  void *at = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, open(getenv("CLOCK_AHEAD"), O_RDONLY), 0);
  if (at != MAP_FAILED) ahead = at;
}
int clock_gettime(clockid_t id, struct timespec *now) {
  if (!real) begin();
  int result = real(id, now);
  if (id == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
  return result;
}
"""


class Clock:
    """Wall clocks of processes that were started with `wrap`."""

    def __init__(self, folder: Path, compiler: str) -> None:
        source, library, self._file = folder / "clock.c", folder / "clock.so", folder / "ahead"
        source.write_text(CLOCK)
        self.set(0)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self.wrap = f"env LD_PRELOAD={library} CLOCK_AHEAD={self._file}"

    def set(self, seconds_ahead: int) -> None:
        if not self._file.exists():
            self._file.write_bytes(bytes(8))
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:] = struct.pack("=q", seconds_ahead)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, to give Envoy a clock of its own")
    return Clock(tmp_path, compiler)


def test_an_envoy_whose_clock_is_set_back_locks_nobody_out(start: Any, clock: Clock) -> None:
    """What it kept of the limit is forgotten; the service says how long to wait."""
    document = default_document()
    document["limits"]["tiers"]["steady"] = {"rps": 1, "rpm": 1000, "burst": 5}
    gateway: Gateway = start("--wrap", f"envoy={clock.wrap}", document=document)
    credential = token(unique(), "steady")

    def retry_after() -> int:
        answer = gateway.ask(PATH, bearer_token=credential)
        assert answer.status in (200, 429)
        return int(answer.value("retry-after") or 0)

    assert eventually(retry_after)
    for back in (3600, 7200):
        waits = [retry_after() for _ in range(20)]
        assert max(waits) == 1
        clock.set(-back)
        assert max(retry_after() for _ in range(20)) == 1
    assert eventually(lambda: retry_after() == 0, every=0.2)
