"""How-to and operator's pages are true: their fragments are valid configurations, their commands do what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cli.app import run as mgw
from tests.docs.markdown import DOCS, ROOT, blocks, name
from tests.docs.walkthrough import first_missing, run, steps

INDEX = DOCS / "how-to" / "index.md"
PAGES = [page for folder in ("how-to", "operate") for page in sorted((DOCS / folder).glob("*.md"))]
START = "mgw up --demo --detach"


def fragments() -> list[Any]:
    """Each YAML block of these pages, with its place."""
    return [
        pytest.param(block.text, id=f"{name(page)}:{block.line}")
        for page in PAGES
        for block in blocks(page.read_text())
        if block.language == "yaml"
    ]


def completed(fragment: str) -> str:
    """The shipped document with what the fragment says: mappings are merged, named entries added or replaced."""
    base = yaml.safe_load((ROOT / "deploy" / "config" / "gateway.yaml").read_text())
    return yaml.safe_dump(merged(base, yaml.load(fragment, Loader=_Words)), sort_keys=False)


class _Words(yaml.SafeLoader):
    """YAML in which `on` and `off` are words, as in the gateway's own reader."""


_Words.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if first not in "oO" or tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def merged(base: Any, change: Any) -> Any:
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: merged(base.get(key), value) for key, value in change.items()}
    if isinstance(base, list) and change and isinstance(change[0], dict):
        names = {entry["name"] for entry in change}
        return [entry for entry in base if entry["name"] not in names] + change
    return change


@pytest.mark.parametrize("fragment", fragments())
def test_a_fragment_is_a_valid_configuration(
    fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a page shows is accepted by the model, the rules and Envoy, together with the shipped document."""
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    file = tmp_path / "gateway.yaml"
    file.write_text(completed(fragment))

    status = mgw(["validate", "-f", str(file)])

    assert status == 0, capsys.readouterr()


def test_a_wrong_fragment_would_be_noticed(tmp_path: Path) -> None:
    """A key that does not exist is a problem of the completed document too."""
    file = tmp_path / "gateway.yaml"
    file.write_text(completed("limits: {no_such_key: 1}"))

    assert mgw(["validate", "-f", str(file)]) == 1


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page.read_text())], ids=name)
def test_the_commands_of_a_page_work_as_written(page: Path, tmp_path: Path) -> None:
    """Beside a demo gateway in the same folder, each page's commands say what the page shows below them."""
    shown = [*steps(INDEX.read_text()), *(steps(page.read_text()) if page != INDEX else [])]

    outputs = run([START, *(step.commands.text for step in shown)], tmp_path)[1:]

    assert len(outputs) == len(shown), f"stopped in the block at line {shown[len(outputs)].commands.line}"
    for step, output in zip(shown, outputs, strict=True):
        missing = first_missing(step.shown or "", output)
        assert missing is None, f"line {step.commands.line}: {missing!r} is not in what follows\n{output}"
