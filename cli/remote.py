"""Logs that commands are given: evidence files and ledgers on this machine, and running monitors by their API's URL.

What a monitor serves is put into a private file, which is removed when the command ends (not by SIGKILL).
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
from cryptography import x509

from ..certs.anchors import trust_domain_of
from ..certs.bundle import read_bundle
from ..certs.contexts import client_context
from ..certs.partners import Federated
from ..certs.servers import ExpectedServer
from ..formats.errors import UsageError, VerificationError
from ..verifier.fetching import Unreachable, check_url, fetch
from .output import progress_bar
from .trusted import NO_TRUST, named_trust

_FILE = click.Path(path_type=Path)
_GIB = 1 << 30
UNREACHABLE = 3
"""Exit code: something is not there."""


@dataclass(frozen=True, slots=True)
class Auditor:
    """Who asks monitors for their logs (an agent's name, or a certificate), and how much is taken from each."""

    identity: str
    cert: Path | None
    key: Path | None
    limit_gib: float


@dataclass(frozen=True, slots=True)
class Source:
    """A log as it was named. `path` is where it lies, None if it could not be had, and then `problem` says why."""

    name: str
    path: Path | None
    problem: str = ""


def auditor_options[F: Callable[..., Any]](command: F) -> Callable[..., Any]:
    """A command that takes `auditor`: an `Auditor` made of its options."""

    @click.option("--as", "identity", default="default", metavar="NAME", help="Of URLs: the agent who asks.")
    @click.option("--cert", type=_FILE, metavar="PEM", help="Of URLs: ask with this certificate instead.")
    @click.option("--key", type=_FILE, metavar="PEM", help="The key of --cert.")
    @click.option(
        "--limit",
        type=click.FloatRange(min=0, min_open=True),
        default=4,
        show_default=True,
        metavar="GIB",
        help="Of URLs: the longest log that is taken.",
    )
    @functools.wraps(command)
    def with_auditor(*args: Any, identity: str, cert: Path | None, key: Path | None, limit: float, **more: Any) -> Any:
        return command(*args, auditor=Auditor(identity, cert, key, limit), **more)

    return with_auditor


@contextmanager
def sources(
    named: Iterable[str], trust: Path | None, config: Path, bundles: Iterable[Path], auditor: Auditor
) -> Iterator[list[Source]]:
    """The logs that are named, for as long as the context lasts.

    `trust` is the identity CA's certificate in the directory of the auditor's trust domain, `bundles` are those of
    others whose monitors are asked; without `trust` also the configuration's.
    Raises UsageError, and VerificationError for a monitor that serves what is not its log.
    """
    names = tuple(named)
    urls = {name: check_url(name) for name in names if is_url(name)}
    if not urls:
        yield [Source(name, Path(name)) for name in names]
        return
    asking = Asking(trust, config, bundles, auditor)
    with _ended_in_order(), tempfile.TemporaryDirectory(prefix="lictor-") as folder:
        found = {}
        for number, (name, url) in enumerate(urls.items()):
            found[name] = asking.fetch(name, url, Path(folder) / f"{number}.jsonl")
        yield [found[name] if name in found else Source(name, Path(name)) for name in names]


def is_url(name: str) -> bool:
    """Whether a running monitor is meant."""
    return "://" in name


def named_in(text: str, found: Iterable[Source]) -> str:
    """A message about the files, with the names under which they were given."""
    for source in found:
        if source.path is not None and is_url(source.name):
            text = text.replace(str(source.path), source.name)
    return text


class Asking:
    """Asks the APIs of monitors: of the auditor's trust domain, and of those of the bundles, each by its own CA."""

    def __init__(self, trust: Path | None, config: Path, bundles: Iterable[Path], auditor: Auditor) -> None:
        """Raises UsageError for what is missing."""
        if (auditor.cert is None) != (auditor.key is None):
            raise UsageError("--cert and --key go together; one of them is missing")
        ca, self._bundles = named_trust(trust, config, bundles)
        if ca is None:
            raise UsageError(NO_TRUST.format(config))
        self._ca = ca
        files = self._ca.parent / "agents" / auditor.identity
        self._cert, self._key = auditor.cert or files / "cert.pem", auditor.key or files / "key.pem"
        if not self._cert.is_file():
            raise UsageError(f"there is no certificate {self._cert}: say who asks with --as NAME, or --cert and --key")
        self._most = int(auditor.limit_gib * _GIB)

    def by_tls(self) -> tuple[ssl.SSLContext, ExpectedServer]:
        """How to ask, and who may answer. Raises UsageError for files that cannot be used."""
        try:
            crl = self._ca.parent / "crl.pem"
            own = trust_domain_of(x509.load_pem_x509_certificate(self._ca.read_bytes()))
            others = tuple(Federated(read_bundle(path).trust_domain, path) for path in self._bundles)
            accepted = (f"spiffe://{name}/monitor/*" for name in (own, *(one.trust_domain for one in others)))
            partners = tuple(one for one in others if one.trust_domain != own)
            expected = ExpectedServer(tuple(dict.fromkeys(accepted)), own, self._ca, crl, partners)
        except (OSError, ValueError, VerificationError) as e:
            raise UsageError(f"the trust domain of {self._ca} cannot be used: {e}") from None
        context = client_context(self._ca, self._cert, self._key)
        expected.trust(context)
        return context, expected

    def fetch(self, name: str, url: str, path: Path) -> Source:
        """Raises UsageError, and VerificationError for what is not the log of the monitor there."""
        context, expected = self.by_tls()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as out, progress_bar(f"fetching {name}", "entries") as progress:
                asyncio.run(fetch(url, context, expected, out, self._most, progress))
        except Unreachable as e:
            path.unlink()
            return Source(name, None, str(e))
        except OSError as e:
            raise UsageError(f"{path} cannot be written: {e.strerror}") from None
        return Source(name, path)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that files are removed."""
    former = signal.signal(signal.SIGTERM, _ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _ended(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)
