"""A key in a process of its own: who may ask, how often, and what becomes of the monitor when it is gone."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lictor.certs import signing_agent
from lictor.certs.signing_agent import MAX_CLIENTS, MAX_SIGNED, SigningAgent, SocketSigner
from lictor.formats.errors import LedgerError, UsageError
from lictor.formats.jws import verify_raw
from lictor.formats.keys import KeySigner, PrivateKey

ME = os.geteuid()
KEY = ed25519.Ed25519PrivateKey.generate()
Start = Callable[..., SigningAgent]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    running: list[tuple[SigningAgent, threading.Thread]] = []

    def make(key: PrivateKey = KEY, users: tuple[int, ...] = (ME,), rate: float = 1e6) -> SigningAgent:
        agent = SigningAgent(KeySigner.of(key), path, users, rate)
        thread = threading.Thread(target=agent.serve)
        thread.start()
        running.append((agent, thread))
        return agent

    yield make
    for agent, thread in running:
        agent.close()
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("key", [KEY, ec.generate_private_key(ec.SECP256R1())], ids=["Ed25519", "P-256"])
def test_it_signs_like_the_key_itself(start: Start, path: Path, key: PrivateKey) -> None:
    agent = start(key)
    remote, local = SocketSigner(path), KeySigner.of(key)
    assert (remote.kid, remote.alg, remote.public_key()) == (local.kid, local.alg, local.public_key())
    for data in (b"", b"x", b"y" * MAX_SIGNED):
        verify_raw(remote.alg, data, remote.sign(data), key.public_key())
    assert (agent.signed, agent.refused) == (3, 0)


def test_the_socket_is_for_its_owner(start: Start, path: Path) -> None:
    start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_user_is_refused(start: Start, path: Path) -> None:
    agent = start(users=(ME + 1,))
    with pytest.raises(UsageError, match=f"evidence.signer: .*user {ME} may not use this key"):
        SocketSigner(path)
    assert agent.refused == 1


def test_a_refusal_before_the_question_is_heard(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that has hung up when the question comes: what it said before that is heard."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        plain = socket.socket

        def connect(self: socket.socket, address: str) -> None:
            plain.connect(self, address)
            client, _ = listener.accept()
            with client:
                client.sendall(struct.pack("!cI", b"-", 3) + b"not")

        monkeypatch.setattr(signing_agent.socket, "socket", type("Answered", (plain,), {"connect": connect}))
        with pytest.raises(UsageError, match="refuses: not;"):
            SocketSigner(path)


def test_more_than_the_rate_is_refused(start: Start, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(signing_agent.time, "monotonic", lambda: now[0])
    start(rate=3)
    signer = SocketSigner(path)
    for _ in range(3):
        signer.sign(b"a")
    with pytest.raises(LedgerError, match="more than 3 signatures a second"):
        signer.sign(b"a")
    now[0] += 0.4
    signer.sign(b"a")


def test_without_an_agent_there_is_no_signer(path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not answer.*start it with lictor signer up"):
        SocketSigner(path)


def test_an_agent_that_is_gone_is_an_error_and_one_that_is_back_is_used(start: Start, path: Path) -> None:
    first = start()
    signer = SocketSigner(path)
    signer.sign(b"a")
    first.close()
    signer._close()  # what the end of the agent's process does to the connection
    with pytest.raises(LedgerError, match="does not answer"):
        signer.sign(b"a")
    start()
    signer.sign(b"a")


def test_another_key_than_at_the_start_is_an_error(start: Start, path: Path) -> None:
    first = start()
    signer = SocketSigner(path)
    first.close()
    signer._close()
    start(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(LedgerError, match="no signature: the signature is wrong"):
        signer.sign(b"a")


def test_an_agent_that_is_silent_is_an_error(path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    signer = SocketSigner(path)
    monkeypatch.setattr(SigningAgent, "_take", lambda _: threading.Event().wait(5))
    assert signer._socket is not None
    signer._socket.settimeout(0.05)
    monkeypatch.setattr(signing_agent, "TIMEOUT_S", 0.05)
    with pytest.raises(LedgerError, match="does not answer: timed out"):
        signer.sign(b"a")


def test_two_agents_do_not_share_a_socket_and_a_dead_one_s_is_taken(start: Start, path: Path) -> None:
    start()
    with pytest.raises(UsageError, match="another process serves"):
        SigningAgent(KeySigner.of(KEY), path, (ME,), 1)


def test_a_dead_agent_s_socket_is_taken(start: Start, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    start()
    SocketSigner(path)


@pytest.mark.parametrize("request_", [b"X" + struct.pack("!I", 0), b"S" + struct.pack("!I", MAX_SIGNED + 1)])
def test_what_is_no_request_ends_the_connection(start: Start, path: Path, request_: bytes) -> None:
    start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(request_)
        with sock.makefile("rb") as f:
            assert f.read().startswith(b"-")
    SocketSigner(path)


def test_connections_are_bounded(start: Start, path: Path) -> None:
    start()
    signers = [SocketSigner(path) for _ in range(MAX_CLIENTS)]
    with pytest.raises(UsageError, match="does not answer"):
        SocketSigner(path)
    signers[0].sign(b"a")


def test_threads_can_share_a_signer(start: Start, path: Path) -> None:
    start()
    signer, bad = SocketSigner(path), []

    def work(number: int) -> None:
        for i in range(50):
            data = b"%d %d" % (number, i)
            try:
                verify_raw("EdDSA", data, signer.sign(data), KEY.public_key())
            except Exception as e:
                bad.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad == []
