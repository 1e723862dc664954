"""The bindings of a directory: every `*.json` there, each with its signature beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..formats.errors import UsageError, VerificationError
from ..formats.jws import PublicKey
from .model import Binding
from .schema import load_binding
from .signing import signature_path, verify


def load_directory(path: Path, keys: Mapping[str, PublicKey], allow_unsigned: bool = False) -> tuple[Binding, ...]:
    """Load and verify all bindings, by file name. A signature that is there must be right, even if none is needed.

    Raises UsageError (unreadable, malformed, unsigned, or one policy_id twice) and VerificationError (wrong signature).
    """
    bindings: dict[str, tuple[Path, Binding]] = {}
    for file, binding in load_files(path, keys, allow_unsigned):
        if binding.policy_id in bindings:
            other = bindings[binding.policy_id][0]
            raise UsageError(f"{file}: the policy_id {binding.policy_id} is already in {other}: remove one of them")
        bindings[binding.policy_id] = (file, binding)
    return tuple(binding for _, binding in bindings.values())


def load_files(
    path: Path, keys: Mapping[str, PublicKey], allow_unsigned: bool = False
) -> Iterator[tuple[Path, Binding]]:
    """Each file with its binding; there may be several versions of one policy. Raises as `load_directory`."""
    try:
        files = sorted(entry for entry in path.iterdir() if entry.suffix == ".json")
    except OSError as e:
        raise UsageError(f"the bindings directory {path} cannot be read: {e.strerror}") from None
    for file in files:
        yield file, _load(file, keys, allow_unsigned)


def read(path: Path) -> bytes:
    """The bytes of a file. Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}") from None


def read_signature(path: Path) -> str | None:
    """The signature beside a binding file, or None if there is none. Raises UsageError if it cannot be read."""
    signature = signature_path(path)
    if not signature.exists():
        return None
    return read(signature).decode("ascii", "replace").strip()


def _load(file: Path, keys: Mapping[str, PublicKey], allow_unsigned: bool) -> Binding:
    binding = load_binding(read(file), str(file))
    signature = read_signature(file)
    if signature is None:
        if allow_unsigned:
            return binding
        raise UsageError(f"{file} is not signed: run lictor binding sign {file}")
    try:
        verify(binding.document, signature, keys)
    except VerificationError as e:
        raise VerificationError(f"{file}: {e}") from None
    return binding
