"""Commands that turn to a Verifier: which one, who asks, and by which trust domain's CA it is verified."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ..bindings.subjects import check_subject
from ..certs.bundle import read_bundle
from ..certs.contexts import client_context
from ..certs.domain import TrustDomain
from ..certs.partners import Federated
from ..certs.servers import ExpectedServer
from ..formats.errors import UsageError, VerificationError
from ..formats.spiffe import trust_domain
from .agent import trust_option
from .log_options import FILE


@dataclass(frozen=True, slots=True)
class Call:
    """The Verifier at `url`, of the trust domain of `bundle`, or else of the one in the directory `trust`.

    Who asks is the agent `identity` of that directory, or whoever has `cert` and `key`.
    """

    url: str
    verifier: str | None
    bundle: Path | None
    identity: str
    cert: Path | None
    key: Path | None
    trust: Path

    def by_tls(self) -> tuple[ssl.SSLContext, ExpectedServer]:
        """How to ask, and who may answer. Raises UsageError for files that cannot be used."""
        domain = TrustDomain.open(self.trust)
        if (self.cert is None) != (self.key is None):
            raise UsageError("--cert and --key go together; one of them is missing")
        cert, key = self.cert, self.key
        if cert is None or key is None:
            files = domain.agent(self.identity)
            cert, key = files.cert, files.key
        partners = self._partners()
        of = partners[0].trust_domain if partners else domain.name
        expected = ExpectedServer(self._accepted(of), domain.name, domain.identity_ca, domain.crl, partners)
        context = client_context(domain.identity_ca, cert, key)
        expected.trust(context)
        return context, expected

    def _partners(self) -> tuple[Federated, ...]:
        if self.bundle is None:
            return ()
        try:
            found = read_bundle(self.bundle)
            found.check_current(datetime.now(UTC))
        except VerificationError as e:
            raise UsageError(str(e)) from None
        return (Federated(found.trust_domain, self.bundle),)

    def _accepted(self, domain: str) -> str:
        if self.verifier is None:
            return f"spiffe://{domain}/verifier/*"
        try:
            check_subject(self.verifier)
        except UsageError as e:
            raise UsageError(f"--verifier: {e}") from None
        its = trust_domain(self.verifier)
        if its != domain:
            raise UsageError(
                f"--verifier: {self.verifier} is of the trust domain {its}, and the CA is that of {domain}: give "
                f"the trust bundle of {its} with --bundle"
            )
        return self.verifier


def calling[F: Callable[..., Any]](command: F) -> Callable[..., Any]:
    """A command that takes `call`: a `Call` made of its options."""

    @click.option("--url", required=True, metavar="https://HOST:PORT", help="Where the Verifier listens.")
    @click.option("--verifier", metavar="ID", help="Its SPIFFE ID; any Verifier of the trust domain if not given.")
    @click.option("--bundle", type=FILE, metavar="FILE", help="Trust bundle of its trust domain, if that is another.")
    @click.option("--as", "identity", default="default", show_default=True, metavar="NAME", help="The agent who asks.")
    @click.option("--cert", type=FILE, metavar="PEM", help="Ask with this certificate instead.")
    @click.option("--key", type=FILE, metavar="PEM", help="The key of --cert.")
    @trust_option
    @functools.wraps(command)
    def with_call(
        *args: Any,
        url: str,
        verifier: str | None,
        bundle: Path | None,
        identity: str,
        cert: Path | None,
        key: Path | None,
        trust: Path,
        **more: Any,
    ) -> Any:
        return command(*args, call=Call(url, verifier, bundle, identity, cert, key, trust), **more)

    return with_call
