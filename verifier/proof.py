"""Verification of proof files, with one CA certificate as the root of trust and perhaps a policy on witnesses."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..certs.evidence_keys import EvidenceKeys
from ..evidence.checkpoint import Checkpoint, Verifier, parse_checkpoint, verify_checkpoint
from ..evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from ..evidence.proof_files import parse_consistency, parse_extra, parse_inclusion
from ..formats import strict_json
from ..formats.cosignature import CheckpointPolicy
from ..formats.errors import FormatError, VerificationError
from ..formats.signed_note import parse_note


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What a good proof proves about the log `origin` under its signed checkpoint of `size` entries and `root` (hex).

    inclusion: `entry` is its entry number `index`. consistency: the log with `old_size` entries and `old_root` is its
    beginning; `old_signed` tells whether the log's signature under that was in the file too.
    """

    kind: Literal["inclusion", "consistency"]
    origin: str
    size: int
    root: str
    witnesses: tuple[str, ...]
    index: int | None = None
    entry: dict[str, Any] | None = None
    old_size: int | None = None
    old_root: str | None = None
    old_signed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def check_proof(
    text: str, ca_pem: bytes, policy: CheckpointPolicy | None = None, revoked: Container[int] = frozenset()
) -> ProofReport:
    """Verify a proof file. `revoked`: serial numbers of certificates of that CA whose keys vouch for nothing.

    Raises FormatError and VerificationError naming what does not hold.
    """
    check = _consistency if text.startswith("{") else _inclusion
    return check(text, ca_pem, policy, revoked)


def _inclusion(text: str, ca_pem: bytes, policy: CheckpointPolicy | None, revoked: Container[int]) -> ProofReport:
    proof = parse_inclusion(text)
    if proof.extra is None:
        raise FormatError("the proof has no extra line with the entry and the log's keys")
    data, jwks = parse_extra(proof.extra)
    checkpoint, witnesses = _signed(proof.note, jwks, ca_pem, policy, revoked)
    if not verify_inclusion(leaf_hash(data), proof.index, checkpoint.size, proof.path, checkpoint.root):
        raise VerificationError(
            f"the entry is not entry {proof.index} of the log {checkpoint.origin} with {checkpoint.size} entries"
        )
    entry = strict_json.loads_object(data)
    if entry.get("seq") != proof.index:
        raise VerificationError(f"the entry says that it has seq {entry.get('seq')!r}, it stands at {proof.index}")
    return ProofReport("inclusion", *_head(checkpoint), witnesses, index=proof.index, entry=entry)


def _consistency(text: str, ca_pem: bytes, policy: CheckpointPolicy | None, revoked: Container[int]) -> ProofReport:
    proof = parse_consistency(text)
    checkpoint, witnesses = _signed(proof.note, proof.keys, ca_pem, policy, revoked)
    if proof.old_note is not None:
        old, _ = _signed(proof.old_note, proof.keys, ca_pem, None, revoked)
        if (old.origin, old.size, old.root) != (checkpoint.origin, proof.old_size, proof.old_root):
            raise VerificationError("the earlier checkpoint is not of the size and root that the proof begins with")
    if not verify_consistency(proof.old_size, checkpoint.size, proof.path, proof.old_root, checkpoint.root):
        raise VerificationError(
            f"the log {checkpoint.origin} with {checkpoint.size} entries does not continue that with {proof.old_size}"
        )
    return ProofReport(
        "consistency",
        *_head(checkpoint),
        witnesses,
        old_size=proof.old_size,
        old_root=proof.old_root.hex(),
        old_signed=proof.old_note is not None,
    )


def _head(checkpoint: Checkpoint) -> tuple[str, int, str]:
    return checkpoint.origin, checkpoint.size, checkpoint.root.hex()


def _signed(
    text: str, jwks: Sequence[dict[str, Any]], ca_pem: bytes, policy: CheckpointPolicy | None, revoked: Container[int]
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The checkpoint, signed by the monitor that it names, and which witnesses of the policy signed it too."""
    note = parse_note(text)
    checkpoint = _vouched(text, parse_checkpoint(note).origin, jwks, ca_pem, revoked)
    if policy is None:
        return checkpoint, ()
    names = policy.signers(note)
    if len(names) < policy.quorum:
        found = f"{len(names)} ({', '.join(names)})" if names else "none"
        raise VerificationError(f"the checkpoint is cosigned by {found} of the witnesses, expected {policy.quorum}")
    return checkpoint, names


def _vouched(
    text: str, origin: str, jwks: Sequence[dict[str, Any]], ca_pem: bytes, revoked: Container[int]
) -> Checkpoint:
    try:
        return verify_checkpoint(text, origin, log_keys(jwks, origin, ca_pem, revoked))
    except VerificationError:
        verify_checkpoint(text, origin, log_keys(jwks, origin, ca_pem))  # what does not hold besides is said first
        raise VerificationError(
            f"the checkpoint of {origin} is signed by no key but such whose certificate is revoked"
        ) from None


def log_keys(
    jwks: Iterable[dict[str, Any]], origin: str, ca_pem: bytes, revoked: Container[int] = frozenset()
) -> list[Verifier]:
    """The keys of the log's own monitor among these, each vouched for by the CA, without those that are revoked.

    Raises VerificationError.
    """
    keys, found = EvidenceKeys(ca_pem, revoked), []
    for jwk in jwks:
        kid, iss = keys.add_jwk(jwk), str(jwk["iss"])
        own = iss.removeprefix("spiffe://") == origin and jwk.get("crv") == "Ed25519"
        if own and not keys.is_revoked(kid, iss):
            found.append(Verifier.of(origin, keys.resolve(kid, iss)))
    return found
