"""What stays known of logs, and what that says of the agents that their monitors speak of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from tiled import Tiled

from lictor.formats import base64url
from lictor.verifier.service import known_logs
from lictor.verifier.service.appraisal import References
from lictor.verifier.service.consistency import Checked, LogState
from lictor.verifier.service.contradictions import SCHEMA
from lictor.verifier.service.database import Database
from lictor.verifier.service.known_logs import Demands, KnownLogs, forget, saw
from lictor.verifier.service.register import Register

ONE, TWO = "spiffe://x/monitor/one", "spiffe://x/monitor/two"
NOW, LOG = 10_000.0, Tiled(100)
WATCHED = Demands(served=True, demanded=False, witnessed=False, within=300)
DEMANDED = Demands(served=True, demanded=True, witnessed=False, within=300)
WITNESSED = Demands(served=True, demanded=False, witnessed=True, within=300)
UNSEEN = Demands(served=False, demanded=True, witnessed=False, within=300)
NOBODY = Demands(served=False, demanded=False, witnessed=False, within=300)
UNSEEN_WITNESSED = Demands(served=False, demanded=False, witnessed=True, within=300)


def name(size: int) -> tuple[int, str]:
    return size, base64url.encode(LOG.tree(size).root)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "r.db", SCHEMA + known_logs.SCHEMA)


@pytest.fixture
def logs(database: Database) -> KnownLogs:
    return KnownLogs(database)


def come(database: Database, *sizes: int, at: float = NOW, end: float = NOW, issuer: str = ONE) -> list[str]:
    with database.transaction() as db:
        return [what for size in sizes for what, _ in saw(db, issuer, name(size), end, at)]


def test_a_round_goes_on_from_the_one_before(database: Database, logs: KnownLogs) -> None:
    assert logs.state(ONE) == LogState()
    come(database, 5, 7, 3)
    come(database, 4, issuer=TWO)
    assert logs.state(ONE) == LogState(None, (name(3), name(5), name(7)))
    assert logs.take(ONE, Checked(LOG.tree(6), (3, 5)), NOW) == ()
    assert logs.state(ONE) == LogState(LOG.tree(6), (name(7),))
    assert logs.state(TWO) == LogState(None, (name(4),))


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "register.sqlite"
    with closing(Register(path)) as register:
        register.logs.take(ONE, Checked(LOG.tree(6), (), (), (("two_histories", "a"),), 5), NOW)
    with closing(Register(path)) as register:
        assert register.logs.state(ONE).newest == LOG.tree(6)
        assert register.forgive(ONE) == ["a"]
        assert register.logs.state(ONE) == LogState(), "what was forgiven is taken up anew"


def test_what_is_proven_in_a_round_is_bounded(
    database: Database, logs: KnownLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_logs, "AT_ONCE", 3)
    come(database, *range(1, 11))
    assert [size for size, _ in logs.state(ONE).unproven] == [1, 2, 3]


def test_two_roots_at_one_size(database: Database) -> None:
    assert come(database, 5, 5) == []
    with database.transaction() as db:
        assert [what for what, _ in saw(db, ONE, (5, name(6)[1]), NOW, NOW)] == ["two_histories"]


@pytest.mark.parametrize(
    ("demands", "checked", "waited", "said"),
    [
        (WATCHED, (), 299, []),
        (WATCHED, (), 301, [("not_checked", "affirming")]),
        (DEMANDED, (), 299, []),
        (DEMANDED, (), 301, [("not_checked", "warning")]),
        (DEMANDED, (5, 7), 301, []),
        (DEMANDED, (5,), 301, [("not_checked", "warning")]),
        (UNSEEN, (), 1, [("not_checked", "warning")]),
        (NOBODY, (), 301, []),
        (UNSEEN_WITNESSED, (), 1, [("not_witnessed", "warning")]),
    ],
)
def test_what_was_not_checked_is_said_in_time(
    database: Database,
    logs: KnownLogs,
    demands: Demands,
    checked: tuple[int, ...],
    waited: float,
    said: list[tuple[str, str]],
) -> None:
    come(database, 5, 7)
    logs.take(ONE, Checked(LOG.tree(7), checked), NOW)
    found = [(one.what, one.status) for one in logs.reasons(ONE, NOW - 1, NOW + waited, demands)]
    assert found == said
    assert list(logs.reasons(ONE, NOW, NOW + waited, demands)) == [], "of windows before nothing is asked"


@pytest.mark.parametrize(
    ("witnessed", "waited", "said"),
    [(7, 301, []), (6, 301, ["not_witnessed"]), (6, 299, []), (None, 301, ["not_witnessed"])],
)
def test_all_must_be_witnessed_in_time(
    database: Database, logs: KnownLogs, witnessed: int | None, waited: float, said: list[str]
) -> None:
    come(database, 5, 7)
    logs.take(ONE, Checked(LOG.tree(7), (5, 7), witnessed=witnessed), NOW)
    assert [one.what for one in logs.reasons(ONE, NOW - 1, NOW + waited, WITNESSED)] == said


def test_what_is_not_of_the_log_is_not_witnessed(database: Database, logs: KnownLogs) -> None:
    """Cosigned is the tree that begins with what evidence rests on; of this it is not known."""
    come(database, 5)
    logs.take(ONE, Checked(LOG.tree(7), (), (5,), witnessed=7), NOW)
    found = [one.what for one in logs.reasons(ONE, NOW - 1, NOW + 301, WITNESSED)]
    assert found == ["not_checked", "not_witnessed"]


def test_what_witnesses_signed_stays_signed_but_not_of_another_history(database: Database, logs: KnownLogs) -> None:
    come(database, 5, 7)
    logs.take(ONE, Checked(LOG.tree(7), (5, 7), witnessed=7), NOW)
    logs.take(ONE, Checked(LOG.tree(8)), NOW)
    assert not list(logs.reasons(ONE, NOW - 1, NOW + 301, WITNESSED))
    logs.take(ONE, Checked(LOG.tree(9), against=(("two_histories", "x"),)), NOW)
    assert [one.what for one in logs.reasons(ONE, NOW - 1, NOW + 301, WITNESSED)] == ["not_witnessed"]


def test_each_bet_may_be_the_one_that_is_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ids the monitor chose, and however many were dropped before."""
    monkeypatch.setattr(known_logs, "parse_bet", lambda token: token)
    with closing(Register(tmp_path / "register.sqlite")) as register:
        rows = [(f"{9 - n}", None, 1, 0.0, NOW if n >= 5 else 0.5, 1, 1, 0, f"bet {n}") for n in range(10)]
        sql = """INSERT INTO bets (issuer, jti, agent, policy, digests, standing, reasons, prev,
                 chained, start, end, size, entries, rank, token)
                 VALUES (?, ?, 'a', 'p', 'd', '', '[]', ?, ?, ?, ?, ?, ?, ?, ?)"""
        with register._db.transaction() as db:
            db.executemany(sql, [(ONE, *row) for row in rows])
        assert register.forget(1) == 5
        register.logs.take(ONE, Checked(LOG.tree()), NOW)
        chosen = iter(range(5))
        monkeypatch.setattr(known_logs.random, "randint", lambda low, high: range(low, high + 1)[next(chosen)])
        found = [register.logs.state(ONE, References()).sample for _ in range(5)]
        assert [str(one.bet) for one in found if one is not None] == [f"bet {n}" for n in range(5, 10)]
        register.forget(NOW + 1)
        assert register.logs.state(ONE, References()).sample is None


def test_what_is_old_is_dropped_and_what_comes_again_is_kept(database: Database, logs: KnownLogs) -> None:
    come(database, 5, 7, end=100)
    come(database, 7, end=200)
    with database.transaction() as db:
        forget(db, 150)
    assert logs.state(ONE).unproven == (name(7),)
