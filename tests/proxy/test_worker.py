"""What a worker makes of its configuration. The running one: tests/end_to_end."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from lictor.certs.domain import TrustDomain
from lictor.engine.upstream_tls import UpstreamIdentity
from lictor.proxy.config import Config, load
from lictor.proxy.federated import AgentServer, Federation
from lictor.proxy.worker import _fixed_upstreams, _listeners, _upstream

DATA = Path(__file__).parent / "data"
INGRESS = """
[ingress]
agent = "spiffe://test.internal/agent/b"
urn = "urn:test:b"
upstream = "{upstream}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TrustDomain.create(tmp_path / "trust", "test.internal").add_monitor("local")
    shutil.copy(DATA / "good.toml", tmp_path / "lictor.toml")
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).write_text("")
    return tmp_path


def config(folder: Path, more: str = "", ingress: str = "") -> Config:
    path = folder / "lictor.toml"
    text = path.read_text()
    if ingress:
        text = text.replace("[identity]", 'ingress = "127.0.0.1:8444"\n[identity]')
        more += INGRESS.format(upstream=ingress)
    path.write_text(text + more)
    return load(path)


def table(host: str, **more: str) -> str:
    lines = {"urn": f"urn:test:{host}", "kind": "tool", **more}
    return (
        f'[[target]]\nmatch = ["https://{host}.example/**"]\n'
        + "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    )  # fmt: skip


def test_who_is_met_how(folder: Path) -> None:
    made = config(
        folder,
        table("plain")
        + table("private", ca="ca.pem", client_cert="client.pem", client_key="client.key")
        + table("agent", kind="agent", agent="spiffe://test.internal/agent/b")
        + table("stranger", kind="agent", agent="spiffe://test.internal/agent/c", ca="ca.pem"),
    )
    federation = Federation(made, folder)
    find, mine = _upstream(made, federation), made.monitor_dir
    assert find("plain.example", 443) == UpstreamIdentity(None, None, None)
    assert find("private.example", 443) == UpstreamIdentity(
        folder / "ca.pem", folder / "client.pem", folder / "client.key"
    )
    trust = folder / "trust/identity-ca.pem"
    only = AgentServer(federation.identities, "test.internal", None)
    assert find("agent.example", 443) == UpstreamIdentity(trust, mine / "cert.pem", mine / "key.pem", only)
    assert find("stranger.example", 443) == UpstreamIdentity(folder / "ca.pem", mine / "cert.pem", mine / "key.pem")
    assert find("private.example", 8443) is None, "another port is another server"
    assert find("elsewhere.example", 443) is None


def test_every_listener_demands_a_certificate(folder: Path) -> None:
    made = config(folder, ingress="http://127.0.0.1:9000")
    listeners = _listeners(made, Federation(made, folder))
    assert [(one.port, one.mode) for one in listeners] == [(8443, "regular"), (8444, "reverse:http://127.0.0.1:9000")]
    for one in listeners:
        assert one.ssl is not None
        assert one.ssl.verify_mode is ssl.CERT_REQUIRED
        assert one.ssl.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("http://127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("http://localhost", ("localhost", 80)),
        ("http://[::1]:9", ("::1", 9)),
    ],
)
def test_the_local_agent_may_be_dialled(folder: Path, upstream: str, expected: tuple[str, int]) -> None:
    assert _fixed_upstreams(config(folder, ingress=upstream)) == frozenset({expected})


def test_without_an_ingress_nothing_is_fixed(folder: Path) -> None:
    assert _fixed_upstreams(config(folder)) == frozenset()


def test_it_holds_no_evidence_key() -> None:
    """The process that parses hostile bytes does not so much as import what signs evidence or writes the log."""
    code = (
        "import sys, lictor.proxy.worker as w\n"
        "print([m for m in sys.modules if m in ('lictor.evidence.recorder', 'lictor.evidence.issuer',"
        " 'lictor.evidence.ledger', 'lictor.evidence.sqlite_store', 'lictor.proxy.control')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
