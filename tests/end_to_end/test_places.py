"""Names lead where they were checked to lead, over real sockets: a worker whose resolver answers what the test says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target

URN = "urn:test:data:api"

WORKER = """
import json, runpy
from pathlib import Path
from lictor.addons import places
asked, answers = Path({asked!r}), Path({answers!r})
def answer(host):
    with asked.open("a") as file:
        file.write(host + "\\n")
    found = json.loads(answers.read_text()).get(host)
    if found is None:
        raise OSError("no such host")
    return found
places._addresses = answer
runpy.run_module("lictor.proxy.worker", run_name="__main__")
"""

START = """
import asyncio, lictor.cli
real = asyncio.create_subprocess_exec
def run(python, m, module, *arguments, **keywords):
    return real(python, {program!r}, *arguments, **keywords)
asyncio.create_subprocess_exec = run
lictor.cli.main()
"""


@dataclass
class Place:
    monitor: Monitor
    server: Server
    asked: Path
    answers: Path

    def resolve(self, **addresses: list[str]) -> None:
        """What names under .test lead to from now on; nothing was asked yet."""
        self.answers.write_text(json.dumps({f"{name}.test": found for name, found in addresses.items()}))
        self.asked.write_text("")

    def get(self, host: str, path: str = "/data/x") -> tuple[int, str]:
        """Status and reason of a request to a host, through CONNECT and TLS."""
        with Wire(self.monitor) as wire:
            answer = wire.connect(f"{host}:{self.server.port}")
            if answer.status == 200:
                answer = wire.tls(host).request("GET", path)
            return answer.status, answer.json().get("reason", "")


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(Server(outside, cert=outside.issue("api.test", "plain.test", "wild.test"))) as server:
        url = f"https://api.test:{server.port}"
        monitor = share_monitor(
            "places",
            {
                "main": binding(
                    data_source_access=["urn:test:data:*"],
                    http_request=[f"https://wild.test:{server.port}/**", f"http://wild.test:{server.port}/**"],
                )
            },
            target(URN, "data_source", f"{url}/data/**"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
            start=False,
        )
        asked, answers, worker, start = (monitor.path / n for n in ("asked", "answers", "worker.py", "start.py"))
        worker.write_text(WORKER.format(asked=str(asked), answers=str(answers)))
        start.write_text(START.format(program=str(worker)))
        monitor.program = [str(start)]
        yield Place(monitor.start(), server, asked, answers)


def test_another_address_is_tried_and_the_name_is_resolved_once(place: Place) -> None:
    """Nothing listens on the first address. What the name leads to later is no concern of this connection."""
    place.resolve(api=["127.0.0.9", "127.0.0.1"])
    at = f"api.test:{place.server.port}"
    with Wire(place.monitor) as wire:
        wire.tunnel(at)
        assert wire.request("GET", "/data/x", "Connection: keep-alive").status == 200
        place.resolve(api=["10.0.0.1"])
        assert wire.request("GET", "/data/y").status == 200
    assert place.asked.read_text() == ""
    assert place.server.requests[-1][1] == "/data/y"
    assert place.get("api.test") == (502, ""), "the next connection finds what it leads to now: nothing answers there"


@pytest.mark.parametrize(
    ("what", "addresses", "status", "reason"),
    [
        ("this machine", ["127.0.0.1"], 403, "address_refused"),
        ("metadata", ["169.254.169.254"], 403, "address_refused"),
        ("one private among public ones", ["1.1.1.1", "192.168.1.1"], 403, "address_refused"),
        ("IPv4 in IPv6", ["::ffff:127.0.0.1"], 403, "address_refused"),
        ("nowhere", None, 502, "name_not_resolved"),
    ],
)
@pytest.mark.parametrize("how", ["CONNECT", "plain http"])
def test_refused_with_an_entry_of_its_own(
    place: Place, what: str, addresses: Any, status: int, reason: str, how: str
) -> None:
    """No entry says that it was allowed. The agent is not told what the address is; the log is."""
    place.resolve(**({"wild": addresses} if addresses else {}))
    seen, since = place.server.seen, len(place.monitor.entries())
    at = f"wild.test:{place.server.port}"
    with Wire(place.monitor) as wire:
        if how == "CONNECT":
            answer = wire.connect(at)
        else:
            wire.authority = at
            answer = wire.request("GET", f"http://{at}/x")
    assert (answer.status, answer.json()["reason"]) == (status, reason)
    assert not any(a.encode() in answer.body for a in addresses or ())
    (entry,) = [e for e in place.monitor.entries()[since:] if "outcome_of" not in e]
    assert (entry["decision"], entry["reason"]) == ("deny", reason)
    assert entry["action_parameters"].get("address") == (addresses[-1] if addresses else None)
    assert place.server.seen == seen
    assert place.asked.read_text() == "wild.test\n"


def test_the_monitor_itself_is_not_dialled(place: Place) -> None:
    place.resolve(api=["127.0.0.1"])
    with Wire(place.monitor) as wire:
        answer = wire.connect(f"api.test:{place.monitor.port}")
    assert answer.json()["reason"] == "not_in_allowlist", "and it is not even asked for where the policy denies it"
    assert place.asked.read_text() == ""


@pytest.mark.parametrize("how", ["CONNECT", "plain http", "a path"])
def test_what_is_denied_is_never_resolved(place: Place, how: str) -> None:
    """A DNS query is a message to whoever answers for the name."""
    place.resolve(api=["127.0.0.1"], secret=["1.1.1.1"])
    at = f"secret.test:{place.server.port}"
    with Wire(place.monitor) as wire:
        if how == "CONNECT":
            assert wire.connect(at).status == 403
        elif how == "plain http":
            wire.authority = at
            assert wire.request("GET", f"http://{at}/").status == 403
        else:
            wire.authority = at = f"api.test:{place.server.port}"
            assert wire.request("GET", f"http://{at}/data/x").status == 403
    assert place.asked.read_text() == ""


def test_the_certificate_is_checked_for_the_name(place: Place) -> None:
    """The address is that of a server that cannot show a certificate for the name."""
    place.resolve(api=["127.0.0.1"])
    assert place.get("api.test") == (200, "")
    assert place.server.requests[-1][2]["Host"] == f"api.test:{place.server.port}"
