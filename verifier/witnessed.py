"""Checkpoints of an evidence file that witnesses signed: all of one history, and enough of them where asked for."""

from __future__ import annotations

from collections.abc import Sequence

from ..evidence.checkpoint import Verifier, verify_checkpoint, verify_note
from ..evidence.merkle import CompactTree
from ..formats.cosignature import CheckpointPolicy
from ..formats.errors import FormatError, VerificationError
from .report import Found


class WitnessCheck:
    """Fed with the checkpoints of a file and then with the tree as it grows.

    `witnessed` entries are under a checkpoint that satisfies the policy; `witnesses` signed it. A checkpoint that the
    log signed and that its entries do not have is a second history, also where no witness is asked for.
    """

    def __init__(self, policy: CheckpointPolicy | None) -> None:
        self.witnessed = 0
        self.witnesses: tuple[str, ...] = ()
        self._policy = policy
        self._roots: dict[int, bytes] = {}
        self._signers: dict[int, tuple[str, ...]] = {}

    def add(self, text: str, origin: str, keys: Sequence[Verifier], count: int) -> None:
        """A checkpoint of a file of `count` entries. Raises Found."""
        try:
            checkpoint = verify_checkpoint(text, origin, keys)
            signers = self._policy.signers(verify_note(text, keys)) if self._policy is not None else ()
        except (FormatError, VerificationError) as e:
            raise Found.bad(f"a checkpoint cannot be relied on: {e}") from None
        if checkpoint.size > count:
            raise Found.prefix("the file does not hold what was signed", checkpoint.size, count)
        if self._roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise Found.bad("the log signed two checkpoints of one size", seq=checkpoint.size)
        if self._policy is not None and len(signers) >= self._policy.quorum:
            self._signers[checkpoint.size] = signers

    def reached(self, tree: CompactTree) -> None:
        """The tree has grown by one entry. Raises Found if a checkpoint of this size says otherwise."""
        expected = self._roots.get(tree.size)
        if expected is None:
            return
        if expected != tree.root():
            what = f"the first {tree.size} entries are not those of the checkpoint that was signed of them"
            raise Found.bad(what, f"root {expected.hex()}", tree.root().hex())
        if tree.size in self._signers:
            self.witnessed, self.witnesses = tree.size, self._signers[tree.size]

    def finish(self, size: int) -> None:
        """All is read. Raises Found if the policy is not satisfied for every entry."""
        if self._policy is not None and self.witnessed < size:
            what = f"not all is under a checkpoint with {self._policy.quorum} of the cosignatures asked for"
            raise Found.prefix(what, size, self.witnessed)
