"""Files of the trust domain: written whole or not at all, private where they hold a key."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def make_directory(path: Path) -> None:
    """A directory for its owner only."""
    path.mkdir(mode=0o700)


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace `path` with `data`: readers see the old file or the new one. `private`: mode 0600, else 0644."""
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            if not private:
                os.fchmod(f.fileno(), 0o644)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
