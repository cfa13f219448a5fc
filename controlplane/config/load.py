"""A document's text becomes a configuration, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.config import document
from controlplane.config.document import Document
from controlplane.config.model import GatewayConfig
from controlplane.config.repair import shape
from controlplane.config.rules import check, services_stay_outside
from controlplane.config.warnings import warnings
from controlplane.errors import ConfigRejected, Problem


def load(text: str, environment: Mapping[str, str], internal: Iterable[str] = ()) -> tuple[Document, GatewayConfig]:
    """Read, resolve and check a document.

    `internal` are `host:port` addresses of the gateway's own parts, which no service may point at.
    Raises ConfigRejected with every problem: of the text, else of the references, else of the fields and the rules.
    """
    written = document.read(text)
    config, findings = shape(document.resolve(written, environment))
    if config is not None:
        findings += [*check(config), *services_stay_outside(config, frozenset(internal))]
    if config is None or findings:
        problems = [written.problem(path, message) for path, message in findings]
        raise ConfigRejected(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return written, config


def warnings_of(written: Document, config: GatewayConfig) -> list[Problem]:
    """What was accepted and is probably not meant, with its place in the text."""
    return [written.problem(path, message) for path, message in warnings(config)]
