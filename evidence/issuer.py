"""Issuing tokens: BETs from open windows, when the next one is due, and the nodes that they hang on."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import SystemRandom
from typing import Any

from ..formats import base64url
from ..formats.jws import Signer
from . import bet, ect
from .claims import new_id
from .ect import BEHAVIORAL_VERIFICATION, Minted
from .ledger import Ledger
from .lineage import Mint, Place
from .store import BetRow, NodeRow
from .windows import Window

_random = SystemRandom()


def next_due(now: float, interval: float, jitter: float) -> float:
    """When the interval that begins at `now` ends: unpredictable within +-`jitter` of it, so that none can time it."""
    return now + interval * (1 + jitter * _random.uniform(-1, 1))


class Issuer:
    """Signs the tokens of one monitor over the log of one ledger."""

    def __init__(self, ledger: Ledger, signer: Signer, monitor_id: str, audience: tuple[str, ...]) -> None:
        self._ledger = ledger
        self._signer = signer
        self._monitor_id = monitor_id
        self._audience = audience

    def issue(
        self,
        window: Window,
        place: Place,
        end: float,
        trigger: str,
        audience: tuple[str, ...] = (),
        about: Mapping[str, Any] | None = None,
    ) -> str:
        """Close `window` at `end` (not included) with a BET under the node of `place` and begin the next one.

        The token covers every entry of the agent so far. `first_seq` in it is the seq of the window's first entry; of
        an empty window it is the size of the log.
        """
        ext = {"prev_bet": window.prev_bet, **({"refused": about} if about else {})}
        jti, token = self._sign(window, place, end, end, trigger, audience, ext)
        window.restart(end, self._ledger.size, jti)
        self._ledger.put_window(window.row())
        return token

    def issue_past(self, window: Window, place: Place, end: float, now: float, versions: Mapping[str, str]) -> str:
        """A BET on demand over a `window` of the past that ended at `end`. It is no part of the chain of windows.

        `versions` are the bindings that judged in it (digest to version), where that was more than one.
        """
        ext: dict[str, Any] = {"prev_bet": None, "evaluation_mode": "on_demand"}
        if len(versions) > 1:
            ext["binding_versions"] = dict(versions)
        return self._sign(window, place, end, now, "demand", (), ext)[1]

    def minter(self, agent_id: str) -> Mint:
        """What signs a node of the agent and keeps it in the store."""

        def mint(
            wid: str, parents: tuple[str, ...], audience: tuple[str, ...] = (), ext: Mapping[str, Any] | None = None
        ) -> Minted:
            node = ect.mint(
                self._signer,
                issuer=self._monitor_id,
                subject=agent_id,
                audience=(*self._audience, *audience),
                wid=wid,
                parents=parents,
                now=self._ledger.now(),
                ext=ext,
            )
            self._ledger.add_node(
                NodeRow(node.jti, wid, agent_id, self._monitor_id, node.iat, parents, node.token, "minted")
            )
            return node

        return mint

    def _sign(
        self,
        window: Window,
        place: Place,
        end: float,
        now: float,
        trigger: str,
        audience: tuple[str, ...],
        more: Mapping[str, Any],
    ) -> tuple[str, str]:
        """(jti, token), which is kept in the ledger."""
        first_seq = window.first_entry if window.count else self._ledger.size
        jti, iat = new_id(), int(now)
        token = bet.issue(
            {
                "iss": self._monitor_id,
                "sub": window.agent_id,
                "aud": list(dict.fromkeys((*self._audience, *audience))),
                "iat": iat,
                "exp": iat + bet.LIFETIME,
                "jti": jti,
                "wid": place.wid,
                "exec_act": BEHAVIORAL_VERIFICATION,
                "par": [place.node],
                "pred": [place.node],
                "bhv_policy": window.policy.policy_id,
                "bhv_result": window.result(),
                "bhv_evidence": window.evidence(),
                "bhv_window": {"start": window.start, "end": end},
                **self._details(window, first_seq, trigger, more),
            },
            self._signer,
        )
        row = BetRow(jti, window.agent_id, window.policy.policy_id, first_seq, window.count, window.start, end, token)
        self._ledger.add_bet(row)
        return jti, token

    def _details(self, window: Window, first_seq: int, trigger: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """`bhv_details`, and the `ext` of DESIGN's additions."""
        shown, omitted = bet.details(window.tallies, window.policy.severities)
        ext: dict[str, Any] = {
            "log_origin": self._ledger.origin,
            "first_seq": first_seq,
            "count": window.count,
            "checkpoint_size": self._ledger.size,
            "checkpoint_root": base64url.encode(self._ledger.root()),
            "binding_version": window.policy.version,
            "binding_digest": window.policy.digest,
            "trigger": trigger,
            **more,
        }
        optional = {
            "default_denied": window.default_denied,
            "unjudged": window.unjudged,
            "durability": "os" if self._ledger.durability == "os" else None,
            "details_omitted": omitted,
            "description": self._ledger.described,
        }
        ext |= {name: value for name, value in optional.items() if value}
        return {"bhv_details": shown, "ext": ext}
