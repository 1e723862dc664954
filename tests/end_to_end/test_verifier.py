"""A monitor and a Verifier as real processes: what is done becomes what is said of the agent, whatever fails."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.verifying import AGENT, Place, Start, placed
from end_to_end.world import Monitor, Outside, until

from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.evidence import bet
from lictor.evidence.claims import new_id
from lictor.formats import jws
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet


@pytest.fixture
def place(tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside) -> Iterator[Place]:
    with placed(tmp_path, domain, make_monitor, outside) as made:
        made.verifier.turns_to(made.monitor)
        made.monitor.start()
        yield made


def test_what_the_agent_does_is_what_is_said_of_it(place: Place) -> None:
    verifier = place.verifier
    assert verifier.ask(code=3)["status"] == "none"
    assert verifier.ask("--fresh", code=3)["status"] == "none", "no monitor has seen the agent"
    assert place.get().status == 200
    until(lambda: verifier.status() == "affirming", what="a good window has come")
    found = verifier.ask("--nonce", "this-is-our-nonce", code=0)
    assert found["nonce"] == "this-is-our-nonce"
    assert found["verifier"] == str(verifier.files.spiffe_id)
    assert found["agents"][AGENT]["entries"] >= 1
    assert verifier.ask("--profile", "veraison", code=0)["status"] == "affirming"

    assert place.get("/closed/x").status == 403
    until(lambda: verifier.status() == "contraindicated", what="the refusal has come")
    found = verifier.ask(code=1)
    assert found["agents"][AGENT]["reasons"][0]["what"] == "violations"
    before = verifier.ask()["agents"][AGENT]
    found = verifier.ask("--fresh", code=1)["agents"][AGENT]
    assert found["until"] > before["until"]
    assert "not_fresh" not in [reason["what"] for reason in found["reasons"]]
    assert verifier.order("quarantine", agent=AGENT, why="it is bad") == 403, "it may demand evidence only"
    place.all_there()
    monitor_that_lies_is_named(place)
    place.monitor.stop()
    assert "not_fresh" in [reason["what"] for reason in verifier.ask("--fresh", code=1)["agents"][AGENT]["reasons"]]

    verifier.stop()
    words = ["verifier", "ask", "default", "--url", verifier.url, "--trust", str(place.monitor.domain.path)]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, "does not answer" in done.stderr) == (3, True)


def test_whatever_fails_between_nothing_is_lost_and_nothing_waits(place: Place) -> None:
    verifier, monitor = place.verifier, place.monitor
    place.get()
    place.all_there()
    verifier.stop(signal.SIGKILL)
    assert [place.get().status for _ in range(3)] == [200] * 3
    assert place.get("/closed/x").status == 403
    with contextlib.closing(socket.create_server(("127.0.0.1", verifier.port))):
        # It takes connections and says nothing.
        assert [place.get().status for _ in range(3)] == [200] * 3
    assert len(monitor.tokens("bets")) > len(verifier.tokens())
    until(lambda: "evidence does not reach the Verifier" in monitor.output(), what="the monitor says so")
    monitor.kill()
    verifier.start()
    monitor.start()
    place.get()
    place.all_there()
    assert {"gap", "restarted"}.isdisjoint(verifier.reasons())
    monitor.stop()
    place.all_there()


def forged(monitor: Monitor, token: str, **changes: Any) -> str:
    """A BET as the monitor could have signed it, too."""
    claims = jws.parse_compact(token, typ=frozenset({bet.TYP})).claims()
    claims |= {"jti": new_id(), **changes}
    return bet.issue(claims, KeySigner.from_file(monitor.domain.monitor(monitor.name).evidence_key))


def monitor_that_lies_is_named(place: Place) -> None:
    verifier, name = place.verifier, place.monitor.name
    chained = [one for one in map(parse_bet, place.monitor.tokens("bets")) if one.ext["trigger"] != "demand"]
    token = chained[-1].token
    claims = jws.parse_compact(token, typ=frozenset({bet.TYP})).claims()
    other = place.monitor.domain.add_monitor(f"other-{name}"[:60])
    status, verdicts = verifier.push(other.name, token)
    assert (status, verdicts[0]["accepted"]) == (200, False)
    assert verifier.push(name, token) == (200, [{"accepted": True, "jti": claims["jti"], "known": True}])
    assert "forked" not in verifier.reasons()

    assert verifier.push(name, forged(place.monitor, token, bhv_result="pass", bhv_details=[]))[1][0]["accepted"]
    assert "forked" in verifier.reasons()
    assert f"{claims['iss']} contradicts itself in 1 ways" in verifier.said()
    words = ["verifier", "forgive", str(claims["iss"]), "-c", str(verifier.config)]
    assert "forgiven" in CliRunner().invoke(cli, words).stdout
    assert "forked" not in verifier.reasons()
