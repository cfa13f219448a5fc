"""A rival does what its row says, or it is not measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.load.rivals import FAR, NEAR, RIVALS, Rival, probe
from tests.load.targets import status_of, upstream

INSTALLED = [rival for rival in RIVALS if not rival.program or shutil.which(rival.program)]


@pytest.mark.parametrize("rival", INSTALLED, ids=[rival.name for rival in INSTALLED])
def test_a_rival_verifies_and_limits_as_it_says(rival: Rival, tmp_path: Path) -> None:
    """A good token passes, a forged one does not, and beyond the limit nothing does; a plain proxy passes all."""
    with upstream(tmp_path) as answers, rival.start(tmp_path, answers.port, NEAR) as target:
        checked = probe(target.url)

    assert list(checked.values()) == ([200, 401, 429] if rival.decides else [200, 200, 200])


def test_limits_out_of_the_way_refuse_nobody(tmp_path: Path) -> None:
    """What is measured is the work of counting, not refusals: an anonymous caller passes too."""
    alone = next(rival for rival in RIVALS if rival.name == "envoy-alone")

    with upstream(tmp_path) as answers, alone.start(tmp_path, answers.port, FAR) as target:
        statuses = {status_of(target.url + "/anything") for _ in range(30)}

    assert statuses == {200}
