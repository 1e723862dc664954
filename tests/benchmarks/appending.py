"""A worker process that asks for receipts over the real channel as fast as they come: `python -m …appending FD`.

It reads on standard input, one a line, how many seconds to work, and answers each with `receipts seconds cpu-seconds`.
Then it tells the outcomes, without which the control process would give up the oldest ones, and says `told`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable

from lictor.evidence.entry import ActionDraft, OutcomeDraft, Receipt
from lictor.proxy import loop
from lictor.proxy.channel import ControlClient, ControlError

IN_FLIGHT = 64
DIGEST = "T1PNoYwrqgwDVLtfmj7L5e0Sq02OEbqHPC8RFhICuUU"
OUTCOME = {"status": 200, "request_bytes": 0, "response_bytes": 500, "response_digest": DIGEST, "duration_ms": 12.345}


def draft(agent_id: str, number: int, said: list[dict[str, str]]) -> ActionDraft:
    """An action as the addons make them: a GET that one behavior allows."""
    parameters = {"method": "GET", "request_bytes": 0, "body_digest": DIGEST}
    target = f"https://api.example.test/v1/items/{number}"
    return ActionDraft(agent_id, "http_request", target, parameters, "allow", "allowed", said)


class _Asking:
    """Always IN_FLIGHT actions wait for their receipt, until the time is over."""

    def __init__(self, client: ControlClient, seconds: float, number: Callable[[], int]) -> None:
        self._client = client
        self._number = number
        self._until = time.perf_counter() + seconds
        self._waiting = IN_FLIGHT
        self._said = [{"policy_id": "urn:p:a", "version": "1.0.0", "binding": DIGEST} | _PASS]
        self.seqs: list[int] = []
        self.over = asyncio.Event()
        for _ in range(IN_FLIGHT):
            self._ask()

    def _ask(self) -> None:
        self._client.record_action(self._draft(), self._answered)

    def _draft(self) -> ActionDraft:
        return draft("spiffe://example.test/agent/a", self._number(), self._said)

    def _answered(self, answer: Receipt | ControlError) -> None:
        if isinstance(answer, ControlError):
            raise SystemExit(f"no receipt: {answer}")
        self.seqs.append(answer.seq)
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self._waiting -= 1
            if not self._waiting:
                self.over.set()

    async def tell(self) -> None:
        """Say how all ended; done when the control process has heard it."""
        for seq in self.seqs:
            self._client.record_outcome(OutcomeDraft(seq, OUTCOME))
        last: list[Receipt | ControlError] = []
        await self._client.record_action(self._draft(), last.append)
        assert isinstance(last[0], Receipt), last
        self._client.record_outcome(OutcomeDraft(last[0].seq, OUTCOME))


_PASS = {"behavior_id": "reads", "result": "pass"}


async def main(descriptor: int) -> None:
    numbers = iter(range(1 << 40))
    client = ControlClient(timeout=30, limit=4096, on_push=lambda _: None, on_lost=lambda: None)
    await client.connect(socket.socket(fileno=descriptor))
    running = asyncio.get_running_loop()
    while line := await running.run_in_executor(None, sys.stdin.readline):
        began, cpu = time.perf_counter(), time.process_time()
        asking = _Asking(client, float(line), numbers.__next__)
        await asking.over.wait()
        print(len(asking.seqs), time.perf_counter() - began, time.process_time() - cpu, flush=True)
        await asking.tell()
        print("told", flush=True)


if __name__ == "__main__":
    loop.run(main(int(sys.argv[1])))
