"""Where the files are that are not Python: inside the installed package, or in the checkout that it runs from.

The wheel carries copies under `controlplane/local/data/` (`force-include` in pyproject.toml). A checkout has no such
folder, so that each file exists there once.
"""

from __future__ import annotations

from pathlib import Path

from controlplane.local.exits import UNAVAILABLE, Failure

PACKAGES = Path(__file__).resolve().parents[2]
"""The folder that our packages are imported from: the checkout, or a site-packages folder."""

_INSTALLED = Path(__file__).resolve().parent / "data"


def bootstrap_template() -> Path:
    """The bootstrap that every Envoy starts from."""
    return _file("bootstrap.yaml", "envoy/bootstrap.yaml")


def default_config() -> Path:
    """The configuration that `mgw up` runs unless it is given another one."""
    return _file("gateway.yaml", "deploy/config/gateway.yaml")


def checkout() -> Path:
    """The root of the checkout. Raises Failure where the package was installed from a wheel."""
    if not (PACKAGES / "pyproject.toml").is_file():
        raise Failure("this verb works on a checkout, and this mgw was installed from a wheel", UNAVAILABLE)
    return PACKAGES


def _file(installed: str, in_checkout: str) -> Path:
    copy = _INSTALLED / installed
    return copy if copy.is_file() else PACKAGES / in_checkout
