"""What people decide while agents run: quarantine in the middle of everything, actions that wait for an approval."""

from __future__ import annotations

import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.talkers import TEXT, Talker, frame, read_frame, upgrade
from end_to_end.test_open_exchanges import Endless
from end_to_end.wire import Answer, Wire, head
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target, until

from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.cli.init import write_binding

NAMES = ("open", "held", "trap", "counted")
AGENT = "spiffe://test.internal/agent/default"
ORCHESTRATOR = "spiffe://test.internal/agent/orchestrator"


def behavior(name: str, on_violation: str, targets: tuple[str, ...], **criteria: Any) -> dict[str, Any]:
    return {
        "behavior_id": name,
        "observable_actions": ["data_source_access"],
        "targets": [f"urn:test:{one}" for one in targets],
        "compliance_criteria": criteria,
        "on_violation": on_violation,
    }


def bound(version: str = "1.0.0", held: str = "hold") -> dict[str, Any]:
    return {
        "policy_id": "urn:test:policy:main",
        "version": version,
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            behavior("known", held, ("open", "held", "counted"), type="allowlist", values=["urn:test:open"]),
            behavior("trap", "quarantine", ("trap",), type="allowlist", values=["urn:test:nothing"]),
            behavior("once", "deny", ("counted",), type="rate", limit=1, period_s=3600),
        ],
    }


def configuration(outside: Outside, port: int, orders: int) -> dict[str, Any]:
    targets = "".join(
        target(f"urn:test:{name}", "data_source", f"https://localhost:{port}/{name}/**") for name in NAMES
    )
    more = f'[interception]\nupstream_ca = "{outside.ca}"\n[orders]\nfrom = ["{ORCHESTRATOR}"]\n'
    return {"targets": targets, "more": more, "workers": 2, "orders": orders}


@dataclass
class Place:
    monitor: Monitor
    server: Endless
    domain: TrustDomain
    orders_port: int
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    @property
    def at(self) -> str:
        return f"localhost:{self.server.port}"

    @contextlib.contextmanager
    def tunnel(self, agent: str = "default") -> Iterator[Wire]:
        with Wire(self.monitor, self.monitor.agent_context(agent)) as wire:
            yield wire.tunnel(self.at)

    def get(self, path: str, agent: str = "default") -> Answer:
        with self.tunnel(agent) as wire:
            return wire.request("GET", path)

    def begin(self, path: str, agent: str = "default") -> Future[Answer]:
        return self.pool.submit(self.get, path, agent)

    def lictor(self, *arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli, [*arguments, "-c", str(self.monitor.config), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def waiting(self, count: int = 1) -> list[int]:
        """The entries of what waits, once that are so many."""
        listed = until(lambda: (w := self.lictor("approve")["waiting"]) and len(w) == count and w)
        return [one["seq"] for one in listed]

    def order(self, name: str, caller: str = "orchestrator", **arguments: Any) -> tuple[int, Any]:
        """An order from afar, or a question if it has no arguments."""
        data = json.dumps(arguments).encode() if arguments else None
        url = f"https://127.0.0.1:{self.orders_port}/orders/{name}"
        context: ssl.SSLContext = self.monitor.agent_context(caller)
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data), context=context, timeout=15) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def reached(self, path: str) -> int:
        """How often the server was asked for this."""
        return sum(request[1] == path for request in self.server.requests)

    def entry(self, since: int, **wanted: Any) -> dict[str, Any]:
        return self.monitor.wait_for(lambda e: all(e.get(name) == value for name, value in wanted.items()), since)

    @property
    def size(self) -> int:
        return len(self.monitor.entries())


@pytest.fixture(scope="module", autouse=True)
def agents(domain: TrustDomain) -> None:
    for name in ("orchestrator", "busy", "rash"):
        domain.add_agent(name)


@pytest.fixture(scope="module")
def place(
    share_monitor: Callable[..., Monitor],
    outside: Outside,
    domain: TrustDomain,
) -> Iterator[Place]:
    with contextlib.closing(Endless(outside)) as server:
        orders = free_port()
        settings = configuration(outside, server.port, orders)
        monitor = share_monitor("decisions", {"main": bound()}, start=False, **settings)
        yield Place(monitor.start(), server, domain, orders)
        server.go_on.set()


def test_held_until_it_is_approved(place: Place) -> None:
    since, path = place.size, "/held/approved"
    asked = place.begin(path)
    (seq,) = place.waiting()
    assert place.reached(path) == 0
    done = place.lictor("approve", str(seq), "--why", "looks fine")
    assert (done["agent"], done["action_target"], done["allowed"]) == (AGENT, "urn:test:held", True)
    assert asked.result(15).status == 200
    assert place.reached(path) == 1
    held = place.entry(since, seq=seq)
    assert (held["decision"], held["reason"]) == ("hold", "not_in_allowlist")
    decided = place.entry(since, decision_of=seq)
    assert (decided["decision"], decided["reason"], decided["why"]) == ("allow", "approved", "looks fine")
    assert decided["by"].startswith("user:")
    assert place.entry(since, outcome_of=seq)["outcome"]["status"] == 200
    assert place.lictor("approve")["waiting"] == []


def test_denied_with_a_reason(place: Place) -> None:
    asked = place.begin("/held/denied")
    (seq,) = place.waiting()
    place.lictor("approve", str(seq), "--deny", "--why", "not today")
    answer = asked.result(15)
    assert (answer.status, answer.json()["reason"], answer.json()["entry"]) == (403, "hold_denied", seq)
    assert "not today" in answer.json()["detail"]
    assert "behavioral-evidence" in answer.headers
    assert place.reached("/held/denied") == 0


def test_approved_from_now_on_until_it_is_revoked(place: Place) -> None:
    asked = place.begin("/held/always")
    (seq,) = place.waiting()
    number = place.lictor("approve", str(seq), "--always")["approval"]
    assert asked.result(15).status == 200
    assert [one["approval"] for one in place.lictor("approve")["standing"]] == [number]
    since = place.size
    assert place.get("/held/always").status == 200, "without waiting, by whichever worker"
    assert place.entry(since, reason="approved_always")["decision_of"] == place.entry(since, decision="hold")["seq"]
    other = place.begin("/held/always", "busy")
    (held,) = place.waiting()
    place.lictor("approve", str(held), "--deny")
    assert other.result(15).status == 403, "it is of one agent"
    place.lictor("approve", "--revoke", str(number))
    asked = place.begin("/held/always")
    (held,) = place.waiting()
    place.lictor("approve", str(held), "--deny")
    assert asked.result(15).status == 403


def test_whose_client_goes_away_waits_no_longer(place: Place) -> None:
    since = place.size
    with place.tunnel() as wire:
        wire.send(head("GET", "/held/left", f"Host: {place.at}"))
        (seq,) = place.waiting()
    decided = place.entry(since, decision_of=seq)
    assert (decided["decision"], decided["reason"]) == ("deny", "caller_gone")
    assert place.reached("/held/left") == 0


def test_of_two_that_are_approved_only_as_many_go_out_as_a_limit_lets(place: Place) -> None:
    asked = [place.begin("/counted/x") for _ in range(3)]
    for seq in place.waiting(3):
        place.lictor("approve", str(seq))
    answers = [one.result(15) for one in asked]
    assert sorted(answer.status for answer in answers) == [200, 403, 403]
    assert {answer.json()["reason"] for answer in answers if answer.status == 403} == {"rate_exceeded"}
    assert place.reached("/counted/x") == 1


def test_other_bindings_are_asked_about_what_is_held(place: Place) -> None:
    asked, since = place.begin("/held/changed"), place.size
    (seq,) = place.waiting()
    write_binding(place.monitor.path / "bindings/main.json", bound("1.0.1", "deny"), place.domain)
    answer = asked.result(15)
    assert (answer.status, answer.json()["reason"]) == (403, "policy_changed")
    assert place.entry(since, decision_of=seq)["reason"] == "policy_changed"
    write_binding(place.monitor.path / "bindings/main.json", bound("1.0.2"), place.domain)
    until(lambda: "urn:test:policy:main 1.0.2" in place.monitor.output())


def test_decisions_from_afar(place: Place) -> None:
    asked = place.begin("/held/afar")
    (seq,) = place.waiting()
    status, listed = place.order("waiting")
    assert (status, [one["seq"] for one in listed["result"]]) == (200, [seq])
    status, done = place.order("decide", seq=seq, allow=True)
    assert (status, done["ok"], done["result"]["by"]) == (200, True, ORCHESTRATOR)
    assert asked.result(15).status == 200
    assert place.entry(0, decision_of=seq)["by"] == ORCHESTRATOR


@pytest.mark.parametrize("name", ["waiting", "quarantine"])
def test_only_who_is_listed_gives_orders(place: Place, name: str) -> None:
    arguments = {"agent": AGENT} if name == "quarantine" else {}
    status, text = place.order(name, caller="default", **arguments)
    assert (status, text) == (403, f"{AGENT} may give no orders to this monitor\n".encode())
    assert place.lictor("approve")["waiting"] == []


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("nothing", {"a": 1}, 404),
        ("waiting", {"a": 1}, 404),
        ("quarantine", {"agent": "default"}, 400),
        ("quarantine", {"agent": AGENT, "by": "somebody else"}, 400),
        ("release", {"agent": AGENT}, 400),
        ("decide", {"seq": 10**9, "allow": True}, 400),
    ],
)
def test_what_is_no_order(place: Place, name: str, arguments: dict[str, Any], status: int) -> None:
    assert place.order(name, **arguments)[0] == status


def test_quarantine_ends_all_that_is_open(place: Place) -> None:
    since, agent = place.size, "spiffe://test.internal/agent/busy"
    with contextlib.ExitStack() as stack:
        stream, big, idle, held = (stack.enter_context(place.tunnel("busy")) for _ in range(4))
        for wire, path in ((stream, "/open/events"), (big, "/open/big")):
            wire.send(head("GET", path, f"Host: {place.at}"))
            assert wire.read_head()[0] == 200
            wire.read_some()
        held.send(head("GET", "/held/x", f"Host: {place.at}"))
        place.waiting()
        assert place.order("quarantine", agent=agent, why="strange")[0] == 200
        assert b"data: 1" not in stream.read_rest()
        big.read_rest()
        assert idle.read_rest() == b""
    assert place.lictor("approve")["waiting"] == []
    assert place.entry(since, action_type="agent_quarantine")["action_parameters"] == {
        "agent": agent,
        "by": ORCHESTRATOR,
        "why": "strange",
    }
    outcomes = [e["outcome"]["error"] for e in place.monitor.entries_of(since) if "outcome_of" in e]
    assert outcomes == ["quarantined"] * 2
    assert place.entry(since, reason="quarantined", decision="deny")["agent_id"] == agent
    assert place.order("release", agent=agent)[0] == 200
    assert until(lambda: place.get("/open/x", "busy").status == 200)


def test_a_violation_puts_in_quarantine(place: Place) -> None:
    agent, since = "spiffe://test.internal/agent/rash", place.size
    assert place.get("/open/before", "rash").status == 200
    answer = place.get("/trap/x", "rash")
    assert (answer.status, answer.json()["reason"]) == (403, "not_in_allowlist"), "it is told why"
    with Wire(place.monitor, place.monitor.agent_context("rash")) as wire:
        answer = wire.connect(place.at)
    assert (answer.status, answer.json()["reason"]) == (403, "quarantined")
    cause = place.entry(since, action_target="urn:test:trap")["seq"]
    said = place.entry(since, action_type="agent_quarantine")["action_parameters"]
    assert (said["agent"], said["by"], said["cause"]) == (agent, "monitor", cause)
    listed = {one["agent"] for one in place.order("quarantined")[1]["result"]}
    assert listed == {agent}
    assert place.get("/open/after").status == 200, "others go on"
    place.lictor("agent", "release", "rash")
    assert until(lambda: place.get("/open/after", "rash").status == 200)


def test_the_log_holds_together(place: Place) -> None:
    """Evidence over windows in which actions were held is computed again by the verifier."""
    place.lictor("bet", "issue", "--agent", AGENT)
    assert place.lictor("log", "verify")["verdict"] == "intact"


def test_over_a_restart(make_monitor: Callable[..., Monitor], outside: Outside, domain: TrustDomain) -> None:
    """Quarantine and standing approvals stay; what waited when the monitor was killed is denied."""
    with contextlib.closing(Endless(outside)) as server:
        orders = free_port()
        settings = configuration(outside, server.port, orders)
        monitor = make_monitor("restarted", {"main": bound()}, start=False, **settings).start()
        place = Place(monitor, server, domain, orders)
        asked = place.begin("/held/x")
        (seq,) = place.waiting()
        place.lictor("approve", str(seq), "--always")
        assert asked.result(15).status == 200
        place.lictor("agent", "quarantine", "busy")
        asked = place.begin("/held/undecided", "rash")
        (seq,) = place.waiting()
        monitor.kill()
        with contextlib.suppress(EOFError, OSError):
            assert asked.result(15).json()["reason"] == "monitor_error"
        monitor.start()
        decided = place.entry(0, decision_of=seq)
        assert (decided["decision"], decided["reason"]) == ("deny", "monitor_ended")
        assert place.get("/held/x").status == 200
        with Wire(monitor, monitor.agent_context("busy")) as wire:
            assert wire.connect(place.at).json()["reason"] == "quarantined"
        assert place.lictor("log", "verify")["verdict"] == "intact"
        assert place.reached("/held/undecided") == 0


def test_a_delegation_that_is_held_on_both_sides(make_monitor: Callable[..., Monitor], domain: TrustDomain) -> None:
    """Evidence goes along once it is let out, and both logs tell the same of it."""
    b_id, urn, message = "spiffe://test.internal/agent/b", "urn:test:agent:b", {"messageId": "m", "parts": []}
    asking = behavior("ask", "hold", ("agent:b",), type="allowlist", values=[]) | {"observable_actions": ["delegation"]}
    document = {**bound(), "expected_behaviors": [asking]}
    with contextlib.closing(Server(None)) as local:
        ingress = f'agent = "{b_id}"\nurn = "{urn}"\nupstream = "http://127.0.0.1:{local.port}"'
        b = make_monitor("b", {"main": document}, ingress=ingress)
        at = f"localhost:{b.ingress_port}"
        targets = target(urn, "agent", f"https://{at}/**", agent=b_id)
        a = make_monitor("a", {"main": document}, targets)

        def send() -> Answer:
            with Wire(a) as wire:
                call = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": message}}
                return wire.tunnel(at).post_json("/", call)

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(send)
            for monitor in (a, b):
                place = Place(monitor, local, domain, 0)  # type: ignore[arg-type]
                (seq,) = place.waiting()
                assert local.requests == []
                place.lictor("approve", str(seq))
            answer = asked.result(15)
        assert answer.status == 200, answer
        assert "behavioral-evidence" in answer.headers
        assert [e.get("decision") for e in b.of_agents() if "decision" in e] == ["hold", "allow", "allow"]
        codes = a.stop(), b.stop()
    assert codes == (0, 0)
    ledgers = [str(monitor.path / "data/ledger.sqlite") for monitor in (a, b)]
    done = CliRunner().invoke(cli, ["chain", "verify", *ledgers, "--trust", str(domain.identity_ca), "--json"])
    shown = json.loads(done.stdout)
    assert [edge["state"] for edge in shown["chain"]["edges"]] == ["agreed"], shown
    assert done.exit_code == 0, shown


def test_messages_of_a_websocket_wait_too(
    make_monitor: Callable[..., Monitor], outside: Outside, domain: TrustDomain
) -> None:
    """What the agent says, and what it is told; and what nobody waits for any more."""
    with contextlib.closing(Talker(outside)) as talker:
        at = f"localhost:{talker.port}"
        document = binding(http_request=[f"https://{at}/**"], websocket_message=[f"https://{at}/**"])
        secret = behavior("secret", "hold", (), type="pattern", forbidden={"": "secret"})
        document["expected_behaviors"].append(
            secret | {"observable_actions": ["websocket_message"], "targets": [f"https://{at}/**"]}
        )
        local = target("urn:test:tool:local", "tool", f"https://{at}/x")
        more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
        monitor = make_monitor("chat", {"main": document}, local, more=more)
        place = Place(monitor, talker, domain, 0)  # type: ignore[arg-type]
        with Wire(monitor) as wire:
            assert upgrade(wire, at, "/open/x").status == 101
            wire.send(frame(TEXT, b"hello"))
            assert read_frame(wire) == (TEXT, b"hello")
            wire.send(frame(TEXT, b"secret"))
            for direction in ("out", "in"):
                (seq,) = place.waiting()
                held = place.entry(0, seq=seq)["action_parameters"]
                assert held["direction"] == direction
                place.lictor("approve", str(seq))
            assert read_frame(wire) == (TEXT, b"secret")
            wire.send(frame(TEXT, b"secret again"))
            (seq,) = place.waiting()
        assert place.entry(0, decision_of=seq)["reason"] == "caller_gone"
