"""The repository keeps its own rules: style, types, the direction of imports, pins, and what it never mentions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from controlplane.cli.checks import CHECKS, run

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", CHECKS)
def test_check_passes(name: str) -> None:
    """Lint, format, strict types, the import contracts, the reference and the docs, as `mgw dev check` has them."""
    said: list[str] = []

    failed = run(ROOT, {name: CHECKS[name]}, said.append)

    assert failed == [], "\n".join(said)


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def _texts() -> dict[str, str]:
    texts = {}
    for path in _tracked():
        if path.is_file() and "envoy_api" not in path.parts:
            texts[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8", errors="replace")
    return texts


def test_every_requirement_is_pinned_with_hashes() -> None:
    """Each requirement in both locks names one version and at least one hash, and no registry."""
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        entries = re.split(r"\n(?=[a-zA-Z0-9])", text.strip())

        assert all(re.match(r"[\w.\[\]-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
        assert "://" not in text


def test_the_repository_names_no_package_registry() -> None:
    """Users install from the registry that they configured."""
    registries = re.compile("pypi" + r"\.org|files\.python" + "hosted")

    assert [name for name, text in _texts().items() if registries.search(text)] == []


def test_generated_package_is_never_imported_by_its_plain_names() -> None:
    """Envoy's messages are `envoy_api.envoy…`: the plain names belong to other distributions."""
    plain = re.compile(r"^\s*(from|import) (envoy|xds|udpa)\.\w+\.", re.M)

    offenders = [name for name, text in _texts().items() if name.endswith(".py") and plain.search(text)]
    assert offenders == []
