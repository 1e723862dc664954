"""What the monitor takes from a witness, whatever that answers, and what its configuration may say of witnesses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.world import free_port

from lictor.certs.domain import TrustDomain
from lictor.evidence.checkpoint import Verifier
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.witness import AddCheckpoint, WitnessDesk, WitnessState
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note
from lictor.proxy.config import Config, load
from lictor.proxy.witnessing import Witnessing

KEY = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([5]) * 32))
COSIGNER = Cosigner("w.example", KEY)
STRANGER = Cosigner("w.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([6]) * 32)))
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
