"""Faults while work is handed on: what was under way is named, what is there verifies, and nothing is taken twice."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from end_to_end.attackers import MESSAGE, Attacker
from end_to_end.verifying import VerifierProcess
from end_to_end.world import Monitor, Server, binding, target, until

from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.evidence import bet, ect
from lictor.formats import jws

AGENT_A, AGENT_B = "spiffe://test.internal/agent/default", "spiffe://test.internal/agent/b"
URN_B = "urn:test:agent:b"
HASTY = "[limits]\nshutdown_s = 0.3\n"
Making = Callable[..., Monitor]


class Agent(Server):
    """Takes its time where it is told to."""

    def __init__(self) -> None:
        super().__init__(None)
        self.may_answer = threading.Event()
        self.may_answer.set()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.may_answer.wait(60)
        super().answer(handler)


class Pair:
    """A monitor whose agent hands work on, and one whose agent takes it."""

    def __init__(self, caller: Monitor, callee: Monitor, agent: Agent) -> None:
        self.caller, self.callee, self.agent = caller, callee, agent

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.callee.ingress_port}/"

    def hand_on(self) -> httpx.Response:
        proxy = httpx.Proxy(self.caller.url, ssl_context=self.caller.agent_context())
        with httpx.Client(proxy=proxy, verify=self.caller.target_context(), trust_env=False, timeout=60) as http:
            return http.post(self.url, json=MESSAGE)

    def tokens(self, number: int = -1) -> tuple[list[str], list[str]]:
        """What came along with a request that reached the agent."""
        headers = self.agent.requests[number][2]
        return headers.get_all(ect.HEADER)[:1], headers.get_all(bet.HEADER)

    def settle(self) -> None:
        """Both ends know how the last delegation ended."""
        for monitor in (self.caller, self.callee):
            delegation(monitor, jti(self.tokens()))

    def verify(self) -> tuple[int, dict[str, Any]]:
        """`lictor chain verify` over both ledgers."""
        ledgers = [str(monitor.path / "data" / "ledger.sqlite") for monitor in (self.caller, self.callee)]
        words = ["chain", "verify", *ledgers, "--trust", str(self.caller.domain.identity_ca), "--json"]
        done = CliRunner().invoke(cli, words)
        assert done.stdout, done.output
        return done.exit_code, json.loads(done.stdout)


def jti(tokens: tuple[list[str], list[str]]) -> str:
    return str(jws.parse_compact(tokens[0][0], typ=ect.ACCEPTED_TYP).claims()["jti"])


def delegation(monitor: Monitor, node: str = "") -> dict[str, Any]:
    """The outcome of the delegation that this node was minted for, or that came from it."""

    def found() -> dict[str, Any] | None:
        entries = monitor.entries()
        about = {e["seq"] for e in entries if node in (e["node"], *e["action_parameters"].get("parents", ()))}
        return next((e["outcome"] for e in entries if e.get("outcome_of") in about), None)

    return until(found, what=f"the outcome of {node}") or {}


@pytest.fixture(scope="module")
def make_pair(share_monitor: Making, domain: TrustDomain) -> Iterator[Callable[..., Pair]]:
    agents: list[Agent] = []

    def make(name: str, *, start: bool = True) -> Pair:
        agent = Agent()
        agents.append(agent)
        rules = {**binding(delegation=[URN_B]), "subjects": ["spiffe://test.internal/monitor/*"]}
        ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{agent.port}"'
        b = share_monitor(f"{name}-b", {"inbound": rules}, ingress=ingress, more=HASTY, start=False)
        at = target(URN_B, "agent", f"https://127.0.0.1:{b.ingress_port}/**", agent=AGENT_B)
        a = share_monitor(f"{name}-a", {"main": binding(delegation=[URN_B])}, at, more=HASTY, start=False)
        with ThreadPoolExecutor() as pool:
            [*pool.map(Monitor.start, (a, b) if start else (b,))]
        return Pair(a, b, agent)

    yield make
    for agent in agents:
        agent.may_answer.set()
        agent.close()


@pytest.fixture(scope="module")
def pair(make_pair: Callable[..., Pair]) -> Pair:
    return make_pair("restarted")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("which", ["caller", "callee"])
def test_a_monitor_is_restarted_in_mid_delegation(
    pair: Pair, domain: TrustDomain, which: str, how: signal.Signals
) -> None:
    monitor: Monitor = getattr(pair, which)
    arrived = len(pair.agent.requests)
    pair.agent.may_answer.clear()
    with ThreadPoolExecutor() as pool:
        work: Future[httpx.Response] = pool.submit(pair.hand_on)
        until(lambda: len(pair.agent.requests) > arrived, what="the work has come")
        monitor.stop() if how == signal.SIGTERM else monitor.kill()
        pair.agent.may_answer.set()
        with contextlib.suppress(httpx.HTTPError):
            assert work.result(60).status_code != 200
    sent = pair.tokens()
    node = jti(sent)
    monitor.start()

    ended = {name: delegation(getattr(pair, name), node) for name in ("caller", "callee")}
    assert not ended[which]["complete"]
    assert ended[which]["error"].startswith("unknown") == (how == signal.SIGKILL), ended
    thief = Attacker(domain, pair.caller.name, AGENT_A, AGENT_B)
    refused = thief.send(pair.callee, *sent)
    assert (refused.status_code, refused.json()["error"]["data"]["reason"]) == (403, "ect_replayed")
    assert pair.hand_on().status_code == 200
    assert len(pair.agent.requests) == arrived + 2
    pair.settle()
    code, shown = pair.verify()
    assert (code, shown["chain"]["problems"]) == (0, []), shown["logs"]
    states = {edge["node"]: edge["state"] for edge in shown["chain"]["edges"]}
    assert (states[node], states[jti(pair.tokens())]) == ("broken_off", "agreed")
    assert [log["verdict"] for log in shown["logs"]] == ["intact", "intact"]


def ahead(seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is so far ahead."""
    asked = ["faketime", "-m", "-f", f"{seconds:+g}s", "printenv", "LD_PRELOAD"]
    library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    faked = {"LD_PRELOAD": library, "FAKETIME": f"{seconds:+g}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return {**os.environ, **faked}


def test_the_clocks_of_two_monitors_differ(make_pair: Callable[..., Pair]) -> None:
    """Within 30 seconds nobody notices; beyond, the callee refuses what is from the future, and the logs disagree."""
    if shutil.which("faketime") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the Debian package faketime is not installed")
    pair = make_pair("skewed", start=False)
    states = {}
    for seconds in (-40, 20, 40):
        pair.caller.start(env=ahead(seconds))
        answer = pair.hand_on()
        entries = [e for e in pair.caller.entries() if "outcome_of" not in e]
        entry = [e for e in entries if e["action_type"] == "delegation"][-1]
        states[entry["node"]] = seconds, answer.status_code
        delegation(pair.caller, entry["node"])
        pair.caller.stop()
        if seconds == 40:
            assert answer.json()["error"]["data"]["reason"] == "ect_invalid"
            assert "the token is from the future" in answer.json()["error"]["data"]["detail"]
    assert [status for _, status in states.values()] == [200, 200, 403]
    code, shown = pair.verify()
    assert [log["verdict"] for log in shown["logs"]] == ["intact", "intact"]
    [problem] = shown["chain"]["problems"]
    assert (code, problem["kind"], states[problem["jti"]][0]) == (1, "bad", -40)
    assert "differ in time by more than the skew of 30 s" in problem["what"]


class Liar:
    """Listens where the Verifier would, with some certificate, and answers whatever is pushed in one way."""

    def __init__(self, port: int, cert: Path, key: Path, answer: Callable[[int], bytes]) -> None:
        self.pushed: set[str] = set()
        self._answer = answer
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as tls:
                file = tls.makefile("rb")
                lines = [*iter(lambda file=file: file.readline().strip().lower(), b"")]
                length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
                bets = json.loads(file.read(length))["bets"]
                self.pushed.update(bets)
                tls.sendall(self._answer(len(bets)))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def http_200(body: bytes, more: int = 0) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
    return head + str(len(body) + more).encode() + b"\r\n\r\n" + body


def not_accepted(count: int) -> bytes:
    return http_200(json.dumps({"verdicts": [{"accepted": False, "problem": "never"}] * count}).encode())


LIES: dict[str, Callable[[int], bytes]] = {
    "the Verifier does not accept a BET: never": not_accepted,
    "evidence does not reach the Verifier": lambda count: http_200(b"\x00\xff"),
    "has more than 1048576 octets": lambda count: http_200(b" " * (2 << 20), 1 << 30),
}


@pytest.fixture
def verifier(tmp_path: Path, domain: TrustDomain) -> Iterator[VerifierProcess]:
    made = VerifierProcess(tmp_path / "verifier", domain)
    yield made
    made.stop()


def test_the_verifier_lies(pair: Pair, domain: TrustDomain, verifier: VerifierProcess, make_monitor: Making) -> None:
    """Whatever it says, work goes on; once it tells the truth all is there that it has not said it will never take."""
    at = target(URN_B, "agent", f"{pair.url}**", agent=AGENT_B)
    rules = {"main": binding(delegation=[URN_B])}
    caller = make_monitor("lied-to", rules, at, more=verifier.table, start=False)
    told = Pair(caller, pair.callee, pair.agent)
    caller.start()
    lost: set[str] = set()
    for said, answer in LIES.items():
        with contextlib.closing(Liar(verifier.port, verifier.files.cert, verifier.files.key, answer)) as liar:
            assert told.hand_on().status_code == 200
            until(lambda liar=liar, said=said: liar.pushed and said in caller.output(), 60, said)
            lost |= liar.pushed if answer is not_accepted else set()
    other = domain.monitor(pair.callee.name)
    with contextlib.closing(Liar(verifier.port, other.cert, other.key, answer)) as liar:
        assert told.hand_on().status_code == 200
        until(lambda: f"{other.spiffe_id}, expected" in caller.output(), 60, "another's certificate")
        assert not liar.pushed
    verifier.start()
    assert told.hand_on().status_code == 200
    until(lambda: len(caller.tokens("bets")) >= 5 and {*caller.tokens("bets")} - lost == {*verifier.tokens()}, 60)
    assert len(lost) == 1
    assert len(verifier.tokens()) == len(set(verifier.tokens()))
    told.settle()
    code, shown = told.verify()
    assert code in (0, 3), "the callee's log has the work of others too"
    assert {problem["kind"] for problem in shown["chain"]["problems"]} <= {"missing"}
