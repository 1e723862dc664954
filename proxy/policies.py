"""From bindings on disk to what each process needs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..bindings.model import Binding
from ..bindings.subjects import applies_to
from ..evidence.recorder import PolicyInfo
from ..formats import strict_json
from ..formats.errors import FormatError, UsageError
from ..formats.jws import PublicKey
from ..formats.keys import from_jwk, thumbprint


def read_signers(paths: Iterable[Path]) -> dict[str, PublicKey]:
    """The public keys that may have signed bindings, by kid. Raises UsageError."""
    keys = {}
    for path in paths:
        try:
            key = from_jwk(strict_json.loads_object(path.read_bytes()))
        except (OSError, FormatError) as e:
            raise UsageError(f"bindings.signers: {path} is not a public key (JWK): {e}") from None
        keys[thumbprint(key)] = key
    return keys


def policies_for(bindings: Sequence[Binding]) -> Callable[[str], tuple[PolicyInfo, ...]]:
    """Which policies, with which severities, apply to an agent: what the recorder needs to know of bindings."""
    infos = [
        (
            binding,
            PolicyInfo(
                binding.policy_id,
                binding.version,
                binding.digest,
                {b.behavior_id: b.severity for b in binding.behaviors},
            ),
        )
        for binding in bindings
        if binding.behaviors  # not of a policy that is retired
    ]

    def find(agent_id: str) -> tuple[PolicyInfo, ...]:
        return tuple(info for binding, info in infos if applies_to(binding.subjects, agent_id))

    return find
