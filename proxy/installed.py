"""What is installed: the files of this package, and the distributions that it needs, as digests anybody can compute.

The package's manifest has a line for each file, sorted by path, as `sha256sum` writes it; what it is about is in
docs/monitors.md. It is the same wherever the package lies, and whether or not its modules were compiled.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from ..formats.errors import UsageError

_AT_ROOT = (".py", ".pyc", ".so", "py.typed")
"""Of the package's own folder only what Python could load counts: in a checkout much else lies beside it."""
_REQUIRES = re.compile(r"^Requires-Dist: ([A-Za-z0-9._-]+)(?![^\n]*\bextra\b)", re.MULTILINE)
_VERSION = re.compile(r"^Version: ([^\s]+)", re.MULTILINE)
_SPELLING = re.compile(r"[-_.]+")


def package_manifest(root: Path | None = None) -> bytes:
    """The lines of the package at `root` (this one); their SHA-256 is its digest. Raises UsageError."""
    return _manifest(root) if root is not None else _own_manifest()


def package_digest() -> str:
    """SHA-256 in hexadecimal over the manifest of this package, as it was when first asked for."""
    return sha256(_own_manifest()).hexdigest()


def package_changed() -> bool:
    """Whether the files are no longer those of `package_digest`. Reads all of them."""
    try:
        return _manifest(_own_root()) != _own_manifest()
    except UsageError:
        return True


@cache
def _own_manifest() -> bytes:
    return _manifest(_own_root())


def _own_root() -> Path:
    return Path(str(files(__package__.partition(".")[0])))


def _manifest(root: Path) -> bytes:
    found: dict[bytes, str] = {}
    for folder, folders, names in os.walk(root, followlinks=True):
        at_root = Path(folder) == root
        folders[:] = [f for f in folders if _counts(Path(folder, f), at_root)]
        for name in names:
            if at_root and not name.endswith(_AT_ROOT):
                continue
            path = Path(folder, name)
            found[os.fsencode(path.relative_to(root).as_posix())] = sha256(_read(path)).hexdigest()
    if any(set(path) & set(b"\n\r\\") for path in found):
        raise UsageError(f"a file of the package {root} has a line feed or a backslash in its name: remove it")
    return b"".join(b"%s  %s\n" % (digest.encode(), path) for path, digest in sorted(found.items()))


def _counts(folder: Path, at_root: bool) -> bool:
    return folder.name != "__pycache__" and (not at_root or (folder / "__init__.py").is_file())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise UsageError(f"{path} of the package cannot be read: {e.strerror}") from None


@dataclass(frozen=True, slots=True)
class Dependencies:
    """`versions` by name, and a `manifest` like the package's with the digest of what each was installed with."""

    versions: dict[str, str]
    manifest: bytes

    @property
    def digest(self) -> str:
        return sha256(self.manifest).hexdigest()


def dependencies(name: str = "lictor") -> Dependencies:
    """The distributions that `name` requires, and what those require, without extras."""
    versions: dict[str, str] = {}
    lines: dict[str, str] = {}
    waiting = [name]
    while waiting:
        asked = waiting.pop()
        known = _SPELLING.sub("-", asked).lower()
        if known in versions:
            continue
        try:
            found = distribution(asked)
        except PackageNotFoundError:
            continue  # for another platform or another Python
        said = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
        version = _VERSION.search(said)
        versions[known] = version[1] if version else "unknown"
        lines[known] = f"{recorded(found)}  {known} {versions[known]}\n"
        waiting += _REQUIRES.findall(said.partition("\n\n")[0])
    itself = _SPELLING.sub("-", name).lower()
    versions.pop(itself, None)
    lines.pop(itself, None)
    return Dependencies(dict(sorted(versions.items())), "".join(line for _, line in sorted(lines.items())).encode())


def recorded(found: Distribution) -> str:
    """SHA-256 in hexadecimal over the files that a distribution's RECORD lists with their digests, sorted.

    Left out is what differs from one place to another: commands with their interpreter's path, compiled modules, and
    what the installer says of itself.
    """
    lines = [
        line.rpartition(",")[0]
        for line in (found.read_text("RECORD") or "").splitlines()
        if ",sha256=" in line and ".dist-info/" not in line and not line.startswith(("../", "/"))
    ]
    return sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()
