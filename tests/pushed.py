"""BETs as a monitor signs them, for what takes them in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from lictor.certs.evidence_keys import evidence_jwk
from lictor.certs.monitors import MonitorFiles
from lictor.evidence import bet
from lictor.evidence.claims import new_id
from lictor.formats.keys import KeySigner


class Pusher:
    """A monitor's hand: each BET continues the one before, under one policy of one agent."""

    def __init__(self, files: MonitorFiles, agent: str, began: float | None = None, step: float = 1) -> None:
        self.id, self.agent = str(files.spiffe_id), agent
        self.signer = KeySigner.from_file(files.evidence_key)
        self.jwk = evidence_jwk(files.evidence_cert.read_bytes())
        self._sizes: Iterator[int] = count(1)
        self._end = (began or time.time()) - 60
        self._step = step
        self._prev: str | None = None

    def bet(self, **changes: Any) -> str:
        """The next BET, `step` seconds after the one before; `ext` adds to the extension."""
        jti, start, size = new_id(), self._end, next(self._sizes)
        self._end += self._step
        ext = {
            "log_origin": self.id.removeprefix("spiffe://"),
            "first_seq": size - 1,
            "count": 1,
            "checkpoint_size": size,
            "checkpoint_root": f"root of {size}",
            "binding_version": "1.0.0",
            "binding_digest": "d1",
            "prev_bet": self._prev,
        } | changes.pop("ext", {})
        claims = {
            "iss": self.id,
            "sub": self.agent,
            "aud": [f"spiffe://{self.id.split('/')[2]}/verifier"],
            "iat": int(self._end) + 1,
            "exp": int(self._end) + 3600,
            "jti": jti,
            "wid": new_id(),
            "exec_act": "behavioral_verification",
            "pred": [new_id()],
            "bhv_policy": "urn:p",
            "bhv_result": "pass",
            "bhv_evidence": bet.EMPTY_EVIDENCE,
            "bhv_window": {"start": start, "end": self._end},
            "bhv_details": [],
            "ext": ext,
        }
        self._prev = jti
        return bet.issue(claims | changes, self.signer)
