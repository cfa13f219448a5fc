"""The repository keeps its own rules: style, types, the direction of imports, pins, and what it never mentions."""

from __future__ import annotations

import ast
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


MACHINES_OWN = re.compile(r"(?<![\w.~$}/-])/(?:home|root|Users|work|tmp|private/var)/")


def _own_texts() -> dict[str, str]:
    """Without what others wrote and we only ship."""
    return {name: text for name, text in _texts().items() if "swagger-ui" not in name}


def test_no_file_names_a_path_of_one_machine() -> None:
    """What is in the repository is the same for everybody: folders of one machine or user are nowhere in it."""
    assert [name for name, text in _own_texts().items() if MACHINES_OWN.search(text)] == []


def test_nothing_is_left_to_do() -> None:
    """What is not done is no comment in the code."""
    left = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|HA" + r"CK)\b")

    assert [name for name, text in _own_texts().items() if left.search(text)] == []


MAY_SLEEP = {
    "tests/support/waiting.py": "the loops that all others wait with",
    "tests/support/upstream.py": "a service that takes the time which a request names",
    "tests/e2e/breaking.py": "a service that is as slow as the test says",
    "tests/ratelimit_service/test_store_failures.py": "a process that is slow itself, which is the subject",
    "tests/load/test_openloop.py": "a server that stalls once, which is what is measured",
    "tests/load/processes.py": "the span over which the machine's load is measured",
}


def test_no_test_waits_for_a_fixed_time() -> None:
    """A test waits for what it needs with tests/support/waiting.py; whatever sleeps by itself has a reason here."""
    texts = {name: text for name, text in _texts().items() if name.startswith("tests/")}
    sleeping = {name for name, text in texts.items() if name.endswith(".py") and _sleeps(text)}
    sleeping |= {name for name, text in texts.items() if name.endswith((".go", ".js")) and _sleeps_elsewhere(text)}

    assert sleeping == MAY_SLEEP.keys()


def _sleeps(source: str) -> bool:
    """Whether a Python module calls something named `sleep`, or hands it over."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    return "sleep" in imported | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _sleeps_elsewhere(source: str) -> bool:
    """The same of Go and JavaScript."""
    return bool(re.search(r"\btime\.Sleep\(|\bsetTimeout\(", source))
