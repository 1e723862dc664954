"""`make torture`: python -m tests.torture [--minutes N] [--seed S]. Exit code 1 if a promise did not hold."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torture.run import torture


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--keep", action="store_true", help="leave the ledger and the logs where they are")
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = tempfile.TemporaryDirectory(prefix="lictor-torture-", delete=not arguments.keep)
    with folder as path:
        print(f"seed {arguments.seed}, {arguments.minutes:g} minutes, in {path}")

        def say(text: str) -> None:
            print(f"\r\x1b[K{time.monotonic() - began:6.1f} s  {text}", end="", flush=True)

        score = torture(Path(path), arguments.minutes * 60, arguments.seed, say if sys.stdout.isatty() else _quiet)
        print(f"\n{score}" if sys.stdout.isatty() else score)
    print(f"figure torture_kills {score.kills.total()}")
    print(f"figure torture_entries_checked {score.entries}")
    return 1 if score.problems else 0


def _quiet(text: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
