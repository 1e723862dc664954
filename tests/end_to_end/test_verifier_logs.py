"""A Verifier that looks at the log itself: with a witness, copies of bindings, and a monitor that lies in the end."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import lictor, spawned
from end_to_end.verifying import AGENT, Place, Start, placed
from end_to_end.witnesses import Witness
from end_to_end.world import Outside, free_port, until

from lictor.certs.domain import TrustDomain
from lictor.evidence import bet
from lictor.evidence.claims import new_id
from lictor.formats import base64url, jws
from lictor.formats.keys import KeySigner


@pytest.fixture
def place(tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside) -> Iterator[Place]:
    with placed(tmp_path, domain, make_monitor, outside) as made:
        monitor, api, logs = made.monitor, free_port(), tmp_path / "logs"
        logs.write_text(lictor("log", "key", "-c", monitor.config).stdout)
        witness = Witness(tmp_path, "w.example", logs)
        text = monitor.config.read_text().replace("[listen]\n", f'[listen]\napi = "127.0.0.1:{api}"\n')
        monitor.config.write_text(
            f"{text}{witness.table}\n[witnessing]\ninterval_s = 0.2\nquorum = 1\n\n[api]\nentries = true\n"
        )
        (tmp_path / "keys").write_text(f"{witness.vkey}\n")
        rules = f'[references]\ndirectory = "{monitor.path}/bindings"\n'
        demands = f'[logs]\ndemanded = true\nwitnesses = ["{tmp_path}/keys"]\nwithin_s = 60\n'
        witness.start()
        made.verifier.turns_to(monitor, api, rules + demands)
        monitor.start()
        yield made
        monitor.stop()
        witness.stop()


def standings(place: Place) -> list[tuple[int, bool]]:
    """Of each tree that BETs rest on whether it is proven, and whether it is under what was witnessed."""
    with contextlib.closing(sqlite3.connect(place.verifier.folder / "data/register.sqlite")) as db:
        sql = "SELECT standing, size <= coalesce((SELECT witnessed FROM logs), 0) FROM roots"
        return [(standing, bool(covered)) for standing, covered in db.execute(sql)]


def window(place: Place, start: float, end: float, code: int) -> dict[str, Any]:
    found = place.verifier.ask("--from", repr(start), "--to", repr(end), code=code)["agents"][AGENT]
    assert found["window"] == {"start": start, "end": end}
    return found


def judge(place: Place, seq: int) -> dict[str, Any]:
    """What the Verifier says of an entry that the monitor's operator disclosed to the agent."""
    shown = place.monitor.path / f"{seq}.json"
    done = spawned("log", "disclose", str(seq), "-c", place.monitor.config, "-o", shown)
    assert done.returncode == 0, done.stderr
    verifier = place.verifier
    done = lictor("verifier", "disclose", shown, "--url", verifier.url, "--trust", verifier.domain.path, "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any]
    (said,) = json.loads(done.stdout)["disclosures"]
    return said


def test_evidence_is_held_to_the_log(place: Place) -> None:
    verifier, began = place.verifier, time.time()
    assert place.get().status == 200
    until(lambda: verifier.status() == "affirming", what="a good window has come")
    until(lambda: set(standings(place)) == {(1, True)}, 30, "all that evidence rests on is proven, and witnessed")
    good = time.time()
    assert place.get("/closed/x").status == 403
    until(lambda: verifier.status() == "contraindicated", what="the refusal has come")

    found = window(place, began, good, 0)
    assert (found["status"], found["reasons"]) == ("affirming", [])
    assert found["entries"] >= 2
    found = window(place, began, time.time(), 1)
    assert (found["status"], found["reasons"][0]["what"]) == ("contraindicated", "violations")
    found = window(place, began - 7200, began - 3600, 0)
    assert (found["status"], found["entries"]) == ("affirming", 0), "the monitor says that there was nothing"

    actions = [e for e in place.monitor.entries() if e["agent_id"] == AGENT and "outcome_of" not in e]
    assert [judge(place, e["seq"])["verdict"] for e in actions] == ["agrees", "agrees"]

    until(lambda: health(place)["judged"] > 0, 60, "a window was judged again from its entries")
    assert {"misjudged", "other_entries"}.isdisjoint(verifier.reasons())

    lies(place)


def health(place: Place) -> dict[str, Any]:
    """What the Verifier says of the monitor's log."""
    with urllib.request.urlopen(f"{place.verifier.url}/healthz", context=context(place), timeout=15) as answer:
        (found,) = json.loads(answer.read())["logs"]
        return dict(found)


def context(place: Place) -> ssl.SSLContext:
    files = place.monitor.domain.agent("default")
    made = ssl.create_default_context(cafile=str(place.monitor.domain.identity_ca))
    made.load_cert_chain(files.cert, files.key)
    return made


def lies(place: Place) -> None:
    """The monitor signs evidence over a tree that is not the one of its log."""
    verifier, monitor = place.verifier, place.monitor
    place.all_there()
    until(lambda: all(standing == 1 for standing, _ in standings(place)), 30, "all is proven")
    token = monitor.tokens("bets")[0]
    claims = jws.parse_compact(token, typ=frozenset({bet.TYP})).claims()
    with contextlib.closing(sqlite3.connect(verifier.folder / "data/register.sqlite")) as db:
        named = {size for (size,) in db.execute("SELECT size FROM roots")}
    size = next(n for n in range(1, max(named)) if n not in named)
    root = base64url.encode(b"x" * 32)
    ext = {
        **claims["ext"],
        "checkpoint_size": size,
        "checkpoint_root": root,
        "prev_bet": None,
        "first_seq": 0,
        "count": 1,
    }
    claims |= {"jti": new_id(), "bhv_policy": "urn:test:policy:other", "ext": ext}
    forged = bet.issue(claims, KeySigner.from_file(monitor.domain.monitor(monitor.name).evidence_key))
    assert verifier.push(monitor.name, forged)[1][0]["accepted"]
    until(lambda: "two_histories" in verifier.reasons(), 30, "the log does not begin with that tree")
    assert f"rests on a tree of {size} entries that its log does not begin with" in verifier.said()
