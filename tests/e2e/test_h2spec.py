"""h2spec against the gateway's own listener: what fails is Envoy's, and is listed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import a_route, default_document
from tests.support.h2spec import failures

ENVOYS = {
    # It ends the connection, or ignores the frame, without the GOAWAY or RST_STREAM that h2spec waits for.
    "Sends a DATA frame with invalid pad length",
    "Sends a GOAWAY frame",
    "Sends a GOAWAY frame with unknown error code",
    "Sends a PRIORITY frame with 0x0 stream identifier",
    "Sends PRIORITY frame that depend on itself",
    "Sends an invalid PING frame to receive GOAWAY frame",
    "Sends invalid connection preface",
    "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1",
    "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    "Sends stream identifier that is numerically smaller than previous",
    # It keeps a closed stream's number for a while, and ignores frames for it (RFC 9113, section 5.1 allows that).
    "closed: Sends a DATA frame",
    "closed: Sends a DATA frame after sending RST_STREAM frame",
    "closed: Sends a HEADERS frame",
    "closed: Sends a HEADERS frame after sending RST_STREAM frame",
}
"""What fails with a bare Envoy 1.40 too, with no option set."""


@pytest.mark.h2spec
async def test_the_listener_conforms(start: StartGateway, tmp_path: Path) -> None:
    """Nothing fails that passes with a bare Envoy."""
    document = default_document()
    route = a_route("h2spec", "discovery", auth="none")
    route["match"]["methods"] = ["GET", "POST"]
    document["routes"].append(route)
    gateway = start(document=document)

    failed = await failures(gateway.address, tmp_path, "-P", "/t/h2spec")

    assert failed <= ENVOYS, json.dumps(sorted(failed - ENVOYS), indent=1)
