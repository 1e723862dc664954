"""What the Verifier does with what it is sent and asked, sans-socket: evidence into the register, results out of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...bindings.subjects import applies_to
from ...certs.authority import read_certificate
from ...certs.evidence_keys import EvidenceKeys, evidence_jwk
from ...certs.partners import Partners
from ...certs.revocation import RevocationList
from ...evidence import bet, description
from ...evidence.bet import Bet
from ...evidence.description import Description
from ...formats import base64url, jws
from ...formats.errors import FormatError, UsageError, VerificationError
from ...formats.keys import KeySigner
from ...formats.spiffe import SpiffeId
from ...formats.watched import Watched
from ..disclosure import check_disclosure, claimed_origin
from . import ear
from .appraisal import NotYet, Reason, References, check_sent
from .config import VerifierConfig
from .consistency import Checked, LogState
from .descriptions import shown
from .ear import Profile, Submodule
from .known_logs import Demands
from .pulling import Window
from .reevaluation import judge_again
from .register import Register, Span

log = logging.getLogger(__name__)

RESULT_S = 60
"""How long a result is good for, in seconds."""


class Desk:
    """Used by one thread at a time."""

    def __init__(self, config: VerifierConfig, now: Callable[[], float] = time.time) -> None:
        """Raises UsageError and VerificationError for files that cannot be used."""
        self._config = config
        self._now = now
        self._signer = KeySigner.from_file(config.files.evidence_key)
        self.jwk = evidence_jwk(config.files.evidence_cert.read_bytes())
        if self.jwk["kid"] != self._signer.kid:
            raise UsageError(f"{config.files.evidence_cert} is not the certificate of {config.files.evidence_key}")
        self._ca = config.domain.identity_ca.read_bytes()
        self._revoked = RevocationList(config.domain.crl, self._ca)
        self._partners = Partners(read_certificate(config.domain.identity_ca), config.federation, strict=True)
        self._references = Watched("the directory of reference copies", self._files, self._load)
        self._register = Register(config.register)
        self._served = frozenset(monitor.name for monitor in config.known_monitors if monitor.log is not None)

    def take(
        self, sender: str, jwks: Sequence[dict[str, Any]], tokens: Sequence[str], descriptions: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Evidence that the monitor `sender` pushes: a verdict for each token, in order.

        `descriptions` are its own, of itself; one that does not hold is as if it had not come.

        Raises VerificationError if `sender` may push none or a key is not his, LedgerError if it cannot be kept; then
        nothing of it is.
        """
        if not applies_to(self._config.monitors, sender):
            raise VerificationError(f"{sender} may not push evidence to this Verifier")
        keys = EvidenceKeys(*self._trusted_of(sender))
        for jwk in jwks:
            keys.add_jwk(jwk)
            if jwk["iss"] != sender:
                raise VerificationError(f"{sender} sent an evidence key of {jwk['iss']}")
        now = self._now()
        verdicts: list[dict[str, Any]] = []
        good = []
        for token in tokens:
            verdict, found = self._verify(token, sender, keys, now)
            verdicts.append(verdict)
            if found is not None:
                good.append((verdict, found))
        problems = [verdict["problem"] for verdict in verdicts if not verdict["accepted"]]
        if problems:
            log.error(
                "%s sent %d of %d that are no evidence; the first: %s", sender, len(problems), len(tokens), problems[0]
            )
        described = [one for token in descriptions for one in self._described(token, sender, keys)]
        taken = self._register.add([found for _, found in good], now, described)
        for (verdict, _), one in zip(good, taken, strict=True):
            verdict["known"] = not one.new
        self._say_against(sender, [text for one in taken for text in one.contradictions])
        return verdicts

    def _trusted_of(self, monitor: str) -> tuple[bytes, frozenset[int]]:
        """The CA (PEM) that alone vouches for this monitor's evidence keys, and the serial numbers that it has revoked.

        Raises VerificationError if they are not to be relied on now, FormatError for what is no SPIFFE ID.
        """
        domain = SpiffeId.parse(monitor).trust_domain
        if domain not in self._partners:
            return self._ca, self._revoked.now().serials
        bundle = self._partners.now(domain)
        return bundle.ca_pem, bundle.revoked.serials

    def _described(self, token: str, sender: str, keys: EvidenceKeys) -> Iterator[Description]:
        """The description, if it holds: `keys` are the sender's, so it is no other's."""
        try:
            yield description.verify(token, keys.resolve)
        except (VerificationError, FormatError) as e:
            log.error("%s sent a description of itself that does not hold: %s", sender, e)

    def _verify(self, token: str, sender: str, keys: EvidenceKeys, now: float) -> tuple[dict[str, Any], Bet | None]:
        try:
            found = bet.verify(token, keys.resolve, audience=self._config.audience)
            check_sent(found, sender, now)
        except NotYet as e:
            return {"accepted": False, "again": True, "problem": str(e)}, None
        except (VerificationError, FormatError) as e:
            return {"accepted": False, "again": False, "problem": str(e)}, None
        return {"accepted": True, "jti": found.jti}, found

    def check_question(
        self, asker: str, agents: Sequence[str], nonce: str | None, window: Window | None = None
    ) -> None:
        """Raises VerificationError if `asker` may not ask, UsageError for what cannot be asked."""
        if not applies_to(self._config.relying_parties, asker):
            raise VerificationError(f"{asker} may not ask this Verifier")
        try:
            for agent in agents:
                SpiffeId.parse(agent)
            if nonce is not None:
                ear.check_nonce(nonce)
        except (FormatError, VerificationError) as e:
            raise UsageError(str(e)) from None
        now = self._now()
        if window is not None and not now - self._config.retention_s <= window[0] < window[1] <= now:
            days = self._config.retention_s / 86400
            raise UsageError(f"a window must begin before it ends, and lie in the last {days:g} days (now is {now:f})")

    def result(
        self,
        asker: str,
        agents: Sequence[str],
        nonce: str | None = None,
        profile: Profile = "ietf",
        stale: Mapping[str, Sequence[str]] | None = None,
        window: Window | None = None,
    ) -> str:
        """An attestation result about these agents, as an EAR JWT; `stale`: why evidence of an agent is not fresh.

        Over a `window` of the past, or the period up to now. Raises like `check_question`.
        """
        self.check_question(asker, agents, nonce, window)
        now = self._now()
        found = {agent: self.appraised(agent, now, (stale or {}).get(agent, ()), window) for agent in agents}
        token = ear.issue(self._signer, self._config.spiffe_id, found, now, RESULT_S, nonce, profile, __version__)
        if len(token) > jws.MAX_TOKEN:
            raise UsageError("the result is too long for one token: ask about fewer agents at a time")
        return token

    def appraised(
        self,
        agent: str,
        now: float,
        stale: Sequence[str] = (),
        window: Window | None = None,
    ) -> Submodule:
        """What is to be said of an agent (see `result`)."""
        span = Span.last(self._config.period_s, now) if window is None else Span.within(*window)
        more = [Reason.of("not_fresh", "warning", text) for text in stale]
        more += self._register.disagreements(agent, self._config.watched, span, now - self._config.logs.within_s)
        under = self._register.descriptions.under(agent, span.ended_after, span.ended_until)
        for monitor, one in under:
            more += self._config.software.reasons(monitor, one)
        known = self._references.current
        found = self._register.appraisal(
            agent, span, known, more, lambda monitor: self._of_monitor(monitor, span.ended_after, now)
        )
        if described := shown(under):
            found = replace(found, behavior={**found.behavior, "described": described})
        if window is not None:
            found = replace(found, behavior={**found.behavior, "window": {"start": window[0], "end": window[1]}})
        return found

    def log_state(self, monitor: str) -> LogState:
        """What is known of a monitor's log, and what of it is to be proven."""
        return self._register.logs.state(monitor, self._references_at(monitor))

    def take_log(self, monitor: str, checked: Checked) -> None:
        """What a look at a monitor's log has shown. Raises LedgerError if it cannot be kept."""
        self._say_against(monitor, self._register.logs.take(monitor, checked, self._now()))

    def _say_against(self, monitor: str, found_out: Sequence[str]) -> None:
        if found_out:
            log.error("%s contradicts itself in %d ways; the first: %s", monitor, len(found_out), found_out[0])

    def _of_monitor(self, monitor: str, since: float, now: float) -> Iterable[Reason]:
        """What is to be said of whatever a monitor says, over windows that ended after `since`."""
        logs = self._config.logs
        demands = Demands(monitor in self._served, logs.demanded, logs.policy is not None, logs.within_s)
        yield from self._register.logs.reasons(monitor, since, now, demands)

    def disclosed(self, sender: str, text: str) -> dict[str, Any]:
        """Judge the action of a disclosure again, and hold against its monitor what is wrong with it.

        Raises VerificationError if `sender` may hand none in, UsageError for one that proves nothing, LedgerError.
        """
        config = self._config
        if not applies_to((*config.relying_parties, *config.monitors), sender):
            raise VerificationError(f"{sender} may not hand disclosures to this Verifier")
        try:
            monitor = f"spiffe://{claimed_origin(text)}"
            ca_pem, revoked = self._trusted_of(monitor)
            shown = check_disclosure(text, ca_pem, revoked=revoked)
            opened = {one.name: one.value for one in shown.opened}
            found = judge_again(shown.entry, opened, self._references_at(monitor), shown.bet)
        except (FormatError, VerificationError) as e:
            raise UsageError(str(e)) from None
        if not applies_to(config.monitors, monitor):
            raise UsageError(f"the entry is of {monitor}, whose evidence this Verifier does not take")
        proof = shown.proof
        tree = proof.size, base64url.encode(bytes.fromhex(proof.root))
        against = self._register.disclosed(monitor, tree, shown.entry, found.problem, self._now())
        self._say_against(monitor, against)
        said = {"monitor": monitor, "agent": shown.entry["agent_id"], "seq": proof.index, "hidden": shown.hidden}
        return {**said, **found.to_json()}

    def holds(self, monitor: str, ids: Collection[str]) -> bool:
        """Whether all these BETs of a monitor have come."""
        return self._register.holds(monitor, ids)

    def count(self) -> int:
        """How many BETs are kept."""
        return self._register.count()

    def forget(self) -> int:
        """Drop what is older than the retention; how much that was."""
        return self._register.forget(self._now() - self._config.retention_s)

    def poll(self) -> None:
        """Take reference copies that changed; what cannot be read is logged, once, and the former stay."""
        self._references.poll()

    def _references_at(self, monitor: str) -> References:
        """The reference copies as this monitor judges by them."""
        return self._references.current.at_monitors_of(SpiffeId.parse(monitor).trust_domain)

    def _load(self) -> References:
        settings = self._config.references
        return References.load(settings.directory, settings.signers) if settings is not None else References()

    def _files(self) -> Iterable[Path]:
        settings = self._config.references
        return settings.directory.iterdir() if settings is not None else ()

    def close(self) -> None:
        self._register.close()
