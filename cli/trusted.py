"""Whom commands trust that verify evidence offline: identity CAs, each for its own trust domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..certs.bundle import read_bundle
from ..certs.evidence_keys import EvidenceKeys
from ..formats.errors import UsageError, VerificationError
from ..proxy.config import load

_FILE = click.Path(path_type=Path)
NO_TRUST = "name the identity CA's certificate with --trust CA.PEM (there is no {})"


@dataclass(frozen=True, slots=True)
class Trusted:
    """CAs as PEM, one after the other; the evidence keys of bundles; the evidence certificates beside the CA."""

    ca_pem: bytes
    jwks: tuple[Mapping[str, Any], ...]
    beside: tuple[Path, ...]


def bundle_option[F: Callable[..., object]](command: F) -> F:
    """`--bundle FILE`, any number of times."""
    text = "Trust bundle of another trust domain, trusted about that one only; may be given several times."
    return click.option("--bundle", "bundles", metavar="FILE", multiple=True, type=_FILE, help=text)(command)


def ca_option[F: Callable[..., object]](command: F) -> F:
    """The root of trust: `--trust CA.PEM`, or what the configuration names."""
    default = Path("lictor.toml")
    command = click.option("-c", "--config", type=_FILE, default=default, show_default=True, help="Configuration.")(
        command
    )
    text = "The identity CA's certificate, the root of all trust here; without it, the configuration's."
    return click.option("--trust", metavar="CA.PEM", type=_FILE, help=text)(command)


def trust_options[F: Callable[..., object]](command: F) -> F:
    """The roots of trust: `ca_option`, and `--bundle FILE`."""
    return ca_option(bundle_option(command))


def named_trust(trust: Path | None, config: Path, bundles: Iterable[Path]) -> tuple[Path | None, list[Path]]:
    """The identity CA's certificate and the bundles; without `trust` also those of the configuration, if it is there.

    Raises UsageError for a configuration that cannot be used.
    """
    if trust is not None or not config.exists():
        return trust, [*bundles]
    settings = load(config)
    return settings.identity.trust / "identity-ca.pem", [*bundles, *(one.bundle for one in settings.federation)]


def find_trust(trust: Path | None, config: Path, bundles: Iterable[Path]) -> Trusted:
    """What was named; without `trust` also the CA and the bundles of the configuration, if that is there.

    Raises UsageError if nothing was, for a file that cannot be used, and for two CAs of one trust domain.
    """
    trust, named = named_trust(trust, config, bundles)
    if trust is None and not named:
        raise UsageError(NO_TRUST.format(config))
    try:
        found = [read_bundle(path) for path in named]
        pem = b"".join([_read_ca(trust), *(bundle.ca_pem for bundle in found)])
        EvidenceKeys(pem)
    except VerificationError as e:
        raise UsageError(str(e)) from None
    jwks = tuple(jwk for bundle in found for jwk in bundle.evidence.jwks())
    beside = trust.parent.glob("monitors/*/evidence*.pem") if trust is not None else ()
    return Trusted(pem, jwks, tuple(sorted(beside)))


def _read_ca(path: Path | None) -> bytes:
    try:
        pem = path.read_bytes() + b"\n" if path is not None else b""
    except OSError as e:
        raise UsageError(f"the CA certificate {path} cannot be read: {e.strerror}") from None
    try:
        if path is not None:
            EvidenceKeys(pem)
    except VerificationError as e:
        raise UsageError(f"{path}: {e}") from None
    return pem
