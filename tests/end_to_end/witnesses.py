"""Witnesses as real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from command_line import lictor
from end_to_end.world import START_S, free_port, until


class Witness:
    """One `lictor witness up`."""

    def __init__(self, folder: Path, name: str, logs: Path) -> None:
        self.folder, self.name, self.logs, self.port = folder, name, logs, free_port()
        self._key = ["--name", name, "--key", str(folder / f"{name}.key")]
        made = lictor("witness", "key", *self._key)
        assert made.returncode == 0, made.stderr
        self.vkey = made.stdout.strip()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def table(self) -> str:
        """The `[[witness]]` of a monitor's configuration."""
        return f'\n[[witness]]\nurl = "{self.url}"\nkey = "{self.vkey}"\n'

    def start(self) -> None:
        said = self.folder / f"{self.name}.log"
        listen = ["--listen", f"127.0.0.1:{self.port}", "--state", str(self.folder / f"{self.name}.db")]
        with said.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lictor", "witness", "up", *self._key, "--log", str(self.logs), *listen],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        until(lambda: "listens" in said.read_text(), START_S, "the witness listens")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0
            self.process = None
