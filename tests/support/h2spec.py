"""h2spec, the conformance suite for HTTP/2 servers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from xml.etree import ElementTree

from tests.support.go_tools import go_tool

FEWEST = 140
"""Of its 146 cases: a run of fewer proves nothing."""


async def failures(address: str, folder: Path, *options: str) -> set[str]:
    """What its strict form finds wrong with a server: the names of the cases."""
    host, _, port = address.rpartition(":")
    report = folder / "report.xml"
    process = await asyncio.create_subprocess_exec(
        str(go_tool("h2spec")), "--strict", "-h", host, "-p", port, "-o", "5", "-j", str(report), *options,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.wait_for(process.wait(), 100)
    text = re.sub(rb"[^\t\n\r -~]", b"?", report.read_bytes())  # it quotes what came, as it came
    cases = [case for suite in ElementTree.fromstring(text) for case in suite if case.tag == "testcase"]
    assert len(cases) >= FEWEST
    return {case.get("classname", "") for case in cases if len(case)}
