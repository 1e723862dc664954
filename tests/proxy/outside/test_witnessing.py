"""What the monitor takes from a witness, whatever that answers, and what its configuration may say of witnesses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.world import free_port

from lictor.certs.domain import TrustDomain
from lictor.evidence.checkpoint import Verifier, parse_checkpoint
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.ledger import Ledger
from lictor.evidence.merkle import verify_consistency
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.witness import AddCheckpoint, WitnessDesk, WitnessState
from lictor.evidence.witnessed import WitnessedLine
from lictor.formats.cosignature import CheckpointPolicy
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note
from lictor.proxy.config import Config, load
from lictor.proxy.outside.witnessing import Witnessing

KEY = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([5]) * 32))
COSIGNER = Cosigner("w.example", KEY)
STRANGER_KEY = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([6]) * 32))
STRANGER = Cosigner("w.example", STRANGER_KEY)
ORIGIN = "w.test/monitor/one"
Reply = Callable[[AddCheckpoint], web.Response]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("witnessing") / "trust", "w.test")
    made.add_monitor("one")
    return made


def configuration(folder: Path, domain: TrustDomain, more: str) -> Config:
    (folder / "lictor.toml").write_text(
        f'[monitor]\nname = "one"\n[listen]\negress = "127.0.0.1:1"\n[identity]\ntrust = "{domain.path}"\n'
        f'[bindings]\ndirectory = "."\n[ledger]\npath = "l.db"\n{more}'
    )
    return load(folder / "lictor.toml")


class Scene:
    """A ledger of three entries, a witness that answers as told, and how the monitor takes it."""

    def __init__(self, config: Config, ledger: Ledger, witnessing: Witnessing) -> None:
        self.config, self.ledger, self.witnessing = config, ledger, witnessing
        self.asked: list[AddCheckpoint] = []
        self.reply: Reply = lambda request: web.Response(status=500)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(AddCheckpoint.parse(await request.read()))
        return self.reply(self.asked[-1])

    def problem(self) -> str:
        return str(self.witnessing.health()["witnesses"][0]["problem"])


@pytest.fixture
async def scene(tmp_path: Path, domain: TrustDomain) -> AsyncIterator[Scene]:
    port = free_port()
    table = f'[[witness]]\nurl = "http://127.0.0.1:{port}/prefix/"\nkey = "{COSIGNER.witness}"\n'
    config = configuration(tmp_path, domain, f"{table}[witnessing]\ninterval_s = 1000\n")
    ledger = Ledger.open(
        SqliteStore(config.ledger.path), ORIGIN, KeySigner.from_file(config.monitor_dir / "evidence.key")
    )
    for number in range(3):
        ledger.add({"n": number})
    await ledger.commit()
    made = Scene(config, ledger, Witnessing(config, ledger))
    app = web.Application()
    app.router.add_post("/prefix/add-checkpoint", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    made.witnessing.start()
    assert made.witnessing._task is not None
    made.witnessing._task.cancel()
    yield made
    await made.witnessing.stop()
    await ledger.close()
    await runner.cleanup()


def lines(text: str, status: int = 200, kind: str = "text/plain") -> Reply:
    return lambda _: web.Response(status=status, body=text.encode(), headers={"Content-Type": kind})


def signed(cosigner: Cosigner, change: str = "") -> Reply:
    return lambda request: web.Response(text=cosigner.sign(parse_note(request.note).text + change, 7))


SIZE = "text/x.tlog.size"


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (lines(""), "no signature of the key"),
        (signed(STRANGER), "no signature of the key"),
        (signed(COSIGNER, "more\n"), "is wrong"),
        (lines("no line\n"), "not a signature line"),
        (lines("x" * 70_000), "more than 65536 octets"),
        (lines("busy\n", 503), "answers 503 (busy)"),
        (lines("", 302), "answers 302"),
        (lines("2\n", 409), "answers 409"),
        (lines("02\n", 409, SIZE), "is no size"),
        (lines("-1\n", 409, SIZE), "is no size"),
        (lines("9" * 40 + "\n", 409, SIZE), "is no size"),
        (lines("2\n", 409, SIZE), "another size each time"),
        (lines("7\n", 409, SIZE), "it signed 7 entries of this log, which now has 3: the log was cut"),
        (lines("no\n", 422), "does not continue what it signed before (no)"),
    ],
)
async def test_what_is_no_cosignature_is_not_kept(scene: Scene, reply: Reply, problem: str) -> None:
    scene.reply = reply
    await scene.witnessing.round()
    assert problem in scene.problem()
    refuses = "cut" in problem or "continue" in problem
    assert scene.witnessing.health().get("status") == ("a witness refuses this log" if refuses else None)
    await scene.ledger.commit()
    assert not [*scene.ledger._store.cosigned()]
    asked = len(scene.asked)
    await scene.witnessing.round()
    assert len(scene.asked) == asked, "it is not asked again at once"


async def test_a_cosignature_is_verified_and_kept_once(scene: Scene) -> None:
    scene.reply = lambda request: web.Response(
        text=STRANGER.sign(parse_note(request.note).text, 8) + COSIGNER.sign(parse_note(request.note).text, 7)
    )
    for _ in range(2):
        await scene.witnessing.round()
    await scene.ledger.commit()
    (row,) = scene.ledger._store.cosigned()
    assert (row.size, row.cosignatures, len(parse_note(row.note).signatures), len(scene.asked)) == (3, 1, 2, 1)
    assert scene.witnessing.health() == {"witnesses": [{"name": "w.example", "cosigned": 3, "problem": ""}]}


async def test_a_witness_that_is_elsewhere_is_followed(scene: Scene, tmp_path: Path) -> None:
    """It holds size 2 already: the monitor learns that and proves 2 to 3, then 3 to 4 without asking for the size."""
    log = Verifier.of(ORIGIN, KeySigner.from_file(scene.config.monitor_dir / "evidence.key").public_key())
    state = WitnessState(tmp_path / "state.db")
    desk = WitnessDesk(COSIGNER, {ORIGIN: (log,)}, state, lambda: 7)

    def reply(request: AddCheckpoint) -> web.Response:
        answer = desk.add_checkpoint(request.text().encode())
        headers = {"Content-Type": answer.content_type}
        return web.Response(status=answer.status, body=answer.body.encode(), headers=headers)

    scene.reply = reply
    await scene.witnessing.round()
    scene.witnessing._peers[0].size = 0
    scene.ledger.add({"n": 3})
    await scene.ledger.commit()
    await scene.witnessing.round()
    scene.ledger.add({"n": 4})
    await scene.ledger.commit()
    await scene.witnessing.round()
    assert scene.problem() == ""
    assert [request.old_size for request in scene.asked] == [0, 0, 3, 4]
    await scene.ledger.commit()
    assert [row.size for row in scene.ledger._store.cosigned()] == [5]
    state.close()


def grown(scene: Scene, entries: int) -> WitnessedLine:
    """What goes along once the log has grown; it holds for the tree of now."""
    for number in range(entries):
        scene.ledger.add({"more": number})
    line = WitnessedLine.parse(scene.ledger.witnessed())
    checkpoint = parse_checkpoint(parse_note(line.note))
    assert line.size == scene.ledger.size
    assert verify_consistency(checkpoint.size, line.size, line.proof, checkpoint.root, scene.ledger.root())
    return line


def times(line: WitnessedLine) -> list[int]:
    return CheckpointPolicy((COSIGNER.witness,), 1).times(parse_note(line.note), 1 << 40)


async def test_what_is_witnessed_goes_along_and_is_proved_to_the_tree_of_now(scene: Scene) -> None:
    assert scene.ledger.witnessed() == ""
    scene.reply = signed(COSIGNER)
    await scene.witnessing.round()
    for entries in (0, 1, 2, 300):
        assert parse_checkpoint(parse_note(grown(scene, entries).note)).size == 3
    scene.reply = lines("busy\n", 503)
    await scene.witnessing.round()
    assert parse_checkpoint(parse_note(grown(scene, 1).note)).size == 3, "the newest that has its quorum"
    scene.witnessing._peers[0].due = 0
    scene.reply = signed(COSIGNER)
    await scene.witnessing.round()
    assert parse_checkpoint(parse_note(grown(scene, 5).note)).size == 307
    assert len(scene.ledger._growing) == 1, "what is not shown any more is not followed"


async def test_a_log_that_does_not_grow_is_signed_again_before_its_cosignature_is_old(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.reply = signed(COSIGNER)
    await scene.witnessing.round()
    scene.reply = lambda request: web.Response(text=COSIGNER.sign(parse_note(request.note).text, 100))
    await scene.witnessing.round()
    assert (len(scene.asked), times(grown(scene, 0))) == (1, [7])
    monkeypatch.setattr("lictor.proxy.outside.witnessing.FRESH_S", 0)
    await scene.witnessing.round()
    assert (len(scene.asked), scene.asked[1].old_size, scene.asked[1].proof) == (2, 3, ())
    assert times(grown(scene, 1)) == [100]


async def test_too_few_cosignatures_do_not_go_along(scene: Scene) -> None:
    scene.witnessing._quorum = 2
    scene.reply = signed(COSIGNER)
    await scene.witnessing.round()
    assert scene.ledger.witnessed() == ""


async def test_what_the_former_key_signed_does_not_go_along_with_what_the_new_one_signs(scene: Scene) -> None:
    scene.reply = signed(COSIGNER)
    await scene.witnessing.round()
    former, new = KeySigner.from_file(scene.config.monitor_dir / "evidence.key"), STRANGER_KEY
    scene.ledger.sign_with(new, former)
    assert scene.ledger.witnessed() == ""
    scene.ledger.add({"n": "rotated"})
    await scene.witnessing.round()
    note = parse_note(grown(scene, 1).note)
    assert {line.key_id for line in note.signatures} >= {
        Verifier.of(ORIGIN, k.public_key()).key_id() for k in (new, former)
    }


async def test_after_a_start_the_newest_that_was_witnessed_goes_along(scene: Scene) -> None:
    """Also while no witness answers, and however far the log has grown."""
    scene.reply = signed(COSIGNER)
    await scene.witnessing.round()
    grown(scene, 600)
    await scene.ledger.commit()
    again = Witnessing(scene.config, scene.ledger)
    scene.ledger.witnessed = str
    scene.reply = lines("busy\n", 503)
    again.start()
    assert again._task is not None
    again._task.cancel()
    await again.round()
    assert parse_checkpoint(parse_note(grown(scene, 7).note)).size == 3
    await again.stop()


W = f'url = "http://127.0.0.1:1"\nkey = "{COSIGNER.witness}"\n'


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ('[[witness]]\nurl = "ftp://x"\nkey = "k"\n', r"witness\[0\].url"),
        ('[[witness]]\nurl = "http://x/?a"\nkey = "k"\n', r"witness\[0\].url"),
        ('[[witness]]\nurl = "http://x"\nkey = "k"\n', r"witness\[0\].key: .*lictor witness key"),
        ('[[witness]]\nurl = "http://x"\n', r"witness\[0\]: 'key' is a required"),
        (f"[[witness]]\n{W}\n[[witness]]\n{W}", "same key"),
        (f"[[witness]]\n{W}\n[witnessing]\nquorum = 2\n", "a quorum of 2 cannot be asked of 1"),
        (f'[[witness]]\n{W}ca = "none.pem"\n', r"witness\[0\].ca: there is no file"),
        ("[witnessing]\ninterval = 2\n", "did you mean interval_s"),
        ("[api]\nentry = true\n", "did you mean entries"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, domain: TrustDomain, more: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        configuration(tmp_path, domain, more)
