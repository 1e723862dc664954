"""A monitor and its witnesses as real processes: what outsiders can read, and that a rewritten log is found out."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from command_line import lictor, spawned
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from end_to_end.witnesses import Witness
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target, until
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet

from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.merkle import CompactTree, leaf_hash
from lictor.formats.canonical import canonical
from lictor.formats.keys import KeySigner


class Place:
    """A monitor that serves its log and has two witnesses."""

    def __init__(self, monitor: Monitor, witnesses: list[Witness], folder: Path, api: int, server: Server) -> None:
        self.monitor, self.witnesses, self.folder, self.api, self.server = monitor, witnesses, folder, api, server
        self.keys = folder / "witness-keys"
        self.keys.write_text("".join(f"{witness.vkey}\n" for witness in witnesses))
        self.ledger = monitor.path / "data/ledger.sqlite"

    @property
    def origin(self) -> str:
        return f"{self.monitor.domain.name}/monitor/{self.monitor.name}"

    def act(self, count: int) -> None:
        """So many requests through the proxy: two entries each, all on disk when this returns."""
        before = len(self.monitor.entries())
        proxy = httpx.Proxy(self.monitor.url, ssl_context=self.monitor.agent_context())
        with httpx.Client(proxy=proxy, verify=self.monitor.target_context(), trust_env=False, timeout=20) as http:
            for number in range(count):
                assert http.get(f"https://127.0.0.1:{self.server.port}/{number}").status_code == 200
        until(lambda: len(self.monitor.entries()) >= before + 2 * count, what="every outcome is there")

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.monitor.domain.identity_ca)
        agent = self.monitor.domain.path / "agents" / "default"
        session.cert = (str(agent / "cert.pem"), str(agent / "key.pem"))
        return session

    def get(self, path: str) -> requests.Response:
        return self.session().get(f"https://127.0.0.1:{self.api}{path}", timeout=20)

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/healthz").json()
        return found

    def witnessed(self) -> dict[str, Any]:
        """Once both witnesses signed the end of the log, and what they signed is served."""

        def signed() -> dict[str, Any] | None:
            health = self.health()
            if not all(w["cosigned"] == health["size"] > 0 for w in health["witnesses"]):
                return None
            return health if self.get("/checkpoint").text.split("\n")[1] == str(health["size"]) else None

        return until(signed, what="both witnesses signed")

    def verify(self, file: Path, *more: str | Path) -> tuple[int, dict[str, Any]]:
        done = lictor("log", "verify", file, "--trust", self.monitor.domain.identity_ca, *more, "--json")
        return done.returncode, json.loads(done.stdout)

    @property
    def policy(self) -> tuple[str | Path, ...]:
        return "--witness", self.keys, "--quorum", "2"


Make = Callable[..., Monitor]


@contextlib.contextmanager
def opened(make: Make, folder: Path, outside: Outside) -> Iterator[Place]:
    """A monitor and its witnesses, while this lasts."""
    with contextlib.closing(Server(outside)) as server:
        api = free_port()
        urls = [f"https://127.0.0.1:{port}/**" for port in (server.port, api)]
        rules = {"main": binding(data_source_access=["urn:test:data"])}
        ca = f'[interception]\nupstream_ca = "{outside.ca}"\n'
        monitor = make("open", rules, target("urn:test:data", "data_source", *urls), more=ca, start=False)
        logs = folder / "logs"
        key = lictor("log", "key", "-c", monitor.config)
        assert key.returncode == 0, key.stderr
        logs.write_text(f"# the monitor under test\n{key.stdout}")
        witnesses = [Witness(folder, f"w{number}.example", logs) for number in (1, 2)]
        with_witnesses = "".join(witness.table for witness in witnesses)
        text = monitor.config.read_text().replace("[listen]\n", f'[listen]\napi = "127.0.0.1:{api}"\n')
        more = "\n[api]\nentries = true\n\n[witnessing]\ninterval_s = 0.1\nquorum = 2\n"
        monitor.config.write_text(text + with_witnesses + more)
        try:
            for witness in witnesses:
                witness.start()
            yield Place(monitor.start(), witnesses, folder, api, server)
        finally:
            monitor.stop()
            for witness in witnesses:
                witness.stop()


@pytest.fixture
def place(tmp_path: Path, make_monitor: Make, outside: Outside) -> Iterator[Place]:
    """For what stops the monitor or spoils its log."""
    with opened(make_monitor, tmp_path, outside) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, share_monitor: Make, outside: Outside) -> Iterator[Place]:
    """For all that only looks at a log which grows."""
    with opened(share_monitor, tmp_path_factory.mktemp("witnessed"), outside) as made:
        yield made


# What follows is written from the texts of c2sp.org/tlog-tiles, signed-note, tlog-checkpoint and tlog-cosignature, and
# RFC 9162, section 2.1.1, alone.


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def tree_hash(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else sha()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha(b"\x01", tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def index_path(number: int) -> str:
    digits = f"{number:03}" if number < 1000 else f"{number:0{-(-len(str(number)) // 3) * 3}}"
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def tiles_of(size: int) -> Iterator[tuple[int, str, int]]:
    """(level, path, width) of all tiles of a tree of this size."""
    level = 0
    while size >> 8 * level:
        full, rest = divmod(size >> 8 * level, 256)
        for number in range(full):
            yield level, f"{level}/{index_path(number)}", 256
        if rest:
            yield level, f"{level}/{index_path(full)}.p/{rest}", rest
        level += 1


def split_bundle(data: bytes) -> list[bytes]:
    entries = []
    while data:
        length = int.from_bytes(data[:2], "big")
        entries.append(data[2 : 2 + length])
        assert len(entries[-1]) == length
        data = data[2 + length :]
    return entries


def cosignature_time(line: str, text: str, vkey: str) -> int:
    name, _, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded)[1:]
    dash, signer, blob = line.split(" ")
    raw = base64.b64decode(blob)
    assert (dash, signer, raw[:4]) == ("\u2014", name, sha(name.encode(), b"\n\x04", public)[:4])
    seconds = int.from_bytes(raw[4:12], "big")
    message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
    Ed25519PublicKey.from_public_bytes(public).verify(raw[12:], message)
    return seconds


def test_an_outsider_recomputes_the_log_from_its_tiles(shared: Place) -> None:
    shared.act(130)
    shared.witnessed()
    note = shared.get("/checkpoint").text
    text, _, signatures = note.partition("\n\n")
    origin, size, root = text.split("\n")
    assert origin == shared.origin
    assert int(size) > 256
    lines = signatures.strip().split("\n")
    assert len(lines) == 3
    for witness in shared.witnesses:
        (line,) = [one for one in lines if one.split(" ")[1] == witness.name]
        assert cosignature_time(line, f"{text}\n", witness.vkey) > 1_700_000_000

    levels: dict[int, list[bytes]] = {}
    for level, path, width in tiles_of(int(size)):
        data = shared.get(f"/tile/{path}").content
        assert len(data) == 32 * width
        levels.setdefault(level, []).extend(data[i : i + 32] for i in range(0, len(data), 32))
    assert base64.b64encode(tree_hash(levels[0])).decode() == root
    assert levels[1] == [tree_hash(levels[0][i : i + 256]) for i in range(0, len(levels[0]) - 255, 256)]

    entries: list[bytes] = []
    for level, path, _ in tiles_of(int(size)):
        if level == 0:
            entries += split_bundle(shared.get(f"/tile/entries/{path.removeprefix('0/')}").content)
    assert [sha(b"\x00", entry) for entry in entries] == levels[0]
    assert [json.loads(entry)["seq"] for entry in entries] == list(range(int(size)))


def test_a_reader_that_is_not_ours_agrees(shared: Place) -> None:
    shared.act(140)
    shared.witnessed()
    session = shared.session()

    class Backend:
        def get(self, *path: str) -> bytes | None:
            answer = session.get(f"https://127.0.0.1:{shared.api}/{'/'.join(path)}", timeout=20)
            return answer.content if answer.status_code == 200 else None

    reader = TilesReader(Backend())
    checkpoint = reader.get_checkpoint()
    known = VkeySet(*(Vkey.from_string(witness.vkey) for witness in shared.witnesses))
    assert {vkey.name for vkey, _ in known.verify(checkpoint.signatures, checkpoint)} == {"w1.example", "w2.example"}
    log_key = spawned("log", "key", "-c", shared.monitor.config).stdout.strip()
    checkpoint.verify(Vkey.from_string(log_key))
    assert reader.calculate_root_hash() == checkpoint.root_hash
    for index in (0, 255, 256, checkpoint.size - 1):
        leaf = sha(b"\x00", reader.get_entry(index))
        reader.get_inclusion_proof(index, checkpoint.size).check(leaf, checkpoint.root_hash)
    old_root = reader.mth(0, 100)
    reader.get_consistency_proof(100, checkpoint.size).check(old_root, checkpoint.root_hash)


def test_a_log_with_its_witnesses_is_intact_to_its_end(place: Place) -> None:
    place.act(3)
    place.monitor.stop()
    evidence = place.folder / "evidence.jsonl"
    assert lictor("log", "export", evidence, "--ledger", place.ledger).returncode == 0
    for file in (evidence, place.ledger):
        code, report = place.verify(file, *place.policy)
        assert (code, report["verdict"], report["witnessed"]) == (0, "intact", report["entries"]), report
    proof = place.folder / "entry.tlog-proof"
    assert spawned("log", "prove", "0", "--ledger", place.ledger, "-o", proof).returncode == 0
    checked = spawned("log", "check-proof", proof, "--trust", place.monitor.domain.identity_ca, *place.policy)
    assert checked.returncode == 0, checked.stdout


def test_the_monitor_goes_on_without_a_witness_and_says_so(shared: Place) -> None:
    shared.act(1)
    signed = shared.witnessed()["size"]
    shared.witnesses[0].stop()
    shared.act(2)
    health = until(lambda: (h := shared.health()) and any(w["problem"] for w in h["witnesses"]) and h)
    assert health["status"] == "ok"
    until(lambda: shared.health()["witnesses"][1]["cosigned"] >= signed + 4, what="the other witness goes on")
    assert int(shared.get("/checkpoint").text.split("\n")[1]) < health["size"], "the newest with both cosignatures"
    shared.witnesses[0].start()
    until(lambda: shared.health()["witnesses"][0]["problem"] == "", what="it is asked again")
    shared.witnessed()


def test_the_api_is_not_reached_through_the_proxy(shared: Place) -> None:
    """Not even where a binding allows it and the catalog names it."""
    proxy = httpx.Proxy(shared.monitor.url, ssl_context=shared.monitor.agent_context())
    with (
        httpx.Client(proxy=proxy, verify=shared.monitor.target_context(), trust_env=False, timeout=20) as http,
        pytest.raises(httpx.ProxyError, match=r"address_refused.* leads to an address that is not dialled"),
    ):
        http.get(f"https://127.0.0.1:{shared.api}/checkpoint")


def rewrite(place: Place, seq: int) -> None:
    """What an operator with the ledger and the stolen key can do: another entry, and everything over it signed anew."""
    key = KeySigner.from_file(place.monitor.domain.monitor(place.monitor.name).evidence_key)
    with contextlib.closing(sqlite3.connect(place.ledger)) as db, db:
        entry = json.loads(db.execute("SELECT data FROM entries WHERE seq = ?", (seq,)).fetchone()[0])
        data = canonical({**entry, "action_target": "urn:test:something:else"})
        db.execute("UPDATE entries SET data = ?, leaf = ? WHERE seq = ?", (data, leaf_hash(data), seq))
        for table in ("bets", "subtrees", "checkpoints"):
            db.execute(f"DELETE FROM {table}")
        tree = CompactTree()
        for (leaf,) in db.execute("SELECT leaf FROM entries ORDER BY seq").fetchall():
            db.executemany("INSERT INTO subtrees VALUES (?, ?, ?)", list(tree.completes(leaf)))
            tree.append(leaf)
        note = CheckpointSigner(place.origin, key).sign(tree.size, tree.root())
        db.execute("UPDATE head SET checkpoint = ?, edge = ?", (note, tree.edge()))


def test_a_rewritten_log_is_found_out(place: Place) -> None:
    place.act(4)
    place.witnessed()
    place.monitor.stop()
    honest = place.folder / "honest.jsonl"
    assert lictor("log", "export", honest, "--ledger", place.ledger).returncode == 0
    kept = next(line for line in honest.read_bytes().splitlines(keepends=True) if line.startswith(b'{"cosigned":'))
    rewrite(place, 2)

    code, report = place.verify(place.ledger)
    assert (code, report["verdict"]) == (0, "intact"), "the monitor's own signature proves nothing against its holder"
    code, report = place.verify(place.ledger, *place.policy)
    assert (code, report["verdict"], report["witnessed"]) == (3, "prefix_only", 0)

    forged = place.folder / "forged.jsonl"
    assert lictor("log", "export", forged, "--ledger", place.ledger).returncode == 0
    lines = forged.read_bytes().splitlines(keepends=True)
    keys = max(i for i, line in enumerate(lines) if line.startswith(b'{"key":')) + 1
    forged.write_bytes(b"".join([*lines[:keys], kept, *lines[keys:]]))
    code, report = place.verify(forged, *place.policy)
    assert (code, report["verdict"]) == (1, "bad")
    assert "are not those of the checkpoint that was signed" in report["problem"]["what"]

    place.monitor.start()
    health = until(lambda: (h := place.health()) and all(w["problem"] for w in h["witnesses"]) and h)
    assert health["status"] == "a witness refuses this log"
    assert "does not continue what it signed before" in place.monitor.output()
    head = place.get("/checkpoint").text
    assert "w1.example" not in head
    place.act(2)
    until(lambda: len(refused(place.witnesses[0])) >= 1, what="the witness keeps the proof")
    assert place.origin in refused(place.witnesses[0])[0]


def refused(witness: Witness) -> list[str]:
    """Checkpoints that the log signed and the witness refused."""
    with contextlib.closing(sqlite3.connect(witness.folder / f"{witness.name}.db")) as db:
        return [row[0] for row in db.execute("SELECT note FROM refused").fetchall()]


def test_a_log_that_was_cut_is_found_out(place: Place) -> None:
    place.act(3)
    place.witnessed()
    place.monitor.stop()
    backup = place.ledger.read_bytes()
    place.monitor.start()
    place.act(3)
    size = place.witnessed()["size"]
    place.monitor.stop()
    for file in place.ledger.parent.glob("ledger.sqlite-*"):
        file.unlink()
    place.ledger.write_bytes(backup)
    place.monitor.start()
    health = until(lambda: (h := place.health()) and all(w["problem"] for w in h["witnesses"]) and h)
    assert health["status"] == "a witness refuses this log"
    assert f"it signed {size} entries of this log" in health["witnesses"][0]["problem"]
