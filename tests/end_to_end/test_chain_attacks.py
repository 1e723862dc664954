"""Attacks on delegation chains, by those who may sign and by those who may not: each by name, and what comes of it.

What one monitor can see is refused at its ingress (`refused_delegations.py` is the table): 403, the reason, an entry,
and evidence of the anomaly at once. What only all logs together show, `lictor chain verify` says.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from end_to_end.attackers import AGENT_A, AGENT_B, MESSAGE, URN_B, Attacker, Callee, tls
from end_to_end.refused_delegations import REFUSED, Sent, after, issued, node, text, two, with_alg
from end_to_end.world import Monitor, Server, binding, target

from lictor.certs.authority import DOCUMENT_SIGNING, Issuer, issue, pem
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli import cli
from lictor.evidence import bet, ect
from lictor.evidence.claims import new_id
from lictor.evidence.export import write_export
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats import jws
from lictor.formats.jws import PublicKey
from lictor.formats.keys import KeySigner
from lictor.verifier import chain

TYPES = ect.ACCEPTED_TYP | {bet.TYP}


@pytest.fixture(scope="module")
def callee(share_monitor: Callable[..., Monitor]) -> Iterator[Callee]:
    rules = {**binding(delegation=[URN_B]), "subjects": ["spiffe://test.internal/monitor/*"]}
    with contextlib.closing(Server(None)) as agent:
        ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{agent.port}"'
        yield Callee(share_monitor("callee", {"inbound": rules}, ingress=ingress, workers=2), agent)


def certify(m: Attacker, domain: TrustDomain, key: PublicKey, path: Path, since: timedelta) -> None:
    """The identity CA's word for an evidence key of that monitor, given so long ago."""
    ca = Issuer.load(domain.identity_ca, domain.path / "identity-ca.key")
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(m.id)]
    now = datetime.now(UTC) - since
    path.write_bytes(pem(issue(ca, key, subject="evidence", usages=[DOCUMENT_SIGNING], names=names, days=2, now=now)))


@pytest.fixture(scope="module")
def mallory(domain: TrustDomain) -> Attacker:
    m = Attacker(domain, "mallory", AGENT_A, AGENT_B)
    certify(m, domain, m.signer.public_key(), m.files.evidence_cert, timedelta(hours=1))
    return m


@pytest.fixture(scope="module")
def other(domain: TrustDomain) -> Attacker:
    return Attacker(domain, "other", AGENT_A, AGENT_B)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(callee: Callee, mallory: Attacker, other: Attacker, name: str) -> None:
    make, reason, words = REFUSED[name]
    callee.refuses(mallory, make(mallory, other), reason, words)


def of_generation(typ: str, parents: str, extension: str) -> Callable[[Attacker, Attacker], Sent]:
    def make(m: Attacker, other: Attacker) -> Sent:
        claims = m.node()
        gone = {"par", "pred", "ext", "ect_ext"} - {parents, extension}
        claims = {name: value for name, value in claims.items() if name not in gone}
        return [m.sign(claims, typ)], m.tokens(claims)[1]

    return make


ROOT, LEAF, FLOW = new_id(), new_id(), new_id()
TAKEN: dict[str, Callable[[Attacker, Attacker], Sent]] = {
    "as lictor writes it": node(),
    "first generation": of_generation("wimse-exec+jwt", "par", "ext"),
    "second generation": of_generation("exec+jwt", "pred", "ect_ext"),
    "alg Ed25519, its newer name": text(lambda m, claims: with_alg(m, claims, "Ed25519")),
    "an extension of 4096 bytes": node(ext={"a": "x" * (4096 - len('{"a":""}'))}, ect_ext=None),
    "an extension of depth 5": node(ext={"a": {"a": {"a": {"a": 1}}}}, ect_ext=None),
    "28 s from the future": issued(28),
    "no workflow": node(wid=None),
    "two nodes, one after the other": two({"jti": ROOT, "wid": FLOW}, {"jti": LEAF, "wid": FLOW, **after(ROOT)}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(callee: Callee, mallory: Attacker, other: Attacker, name: str) -> None:
    """What stands just on this side of the limits."""
    callee.takes(mallory, TAKEN[name](mallory, other))


def test_a_level_below_what_the_binding_asks_for(callee: Callee, mallory: Attacker) -> None:
    """Signed, and of no log: good enough where nothing is asked, and refused where L3 is."""
    callee.asks({"level": "L3"})
    try:
        response = mallory.send(callee.monitor, *mallory.tokens(mallory.node()))
        assert (response.status_code, response.json()["error"]["data"]["reason"]) == (403, "level_too_low")
        logged = {"first_seq": 0, "count": 1, "checkpoint_size": 1, "checkpoint_root": bet.EMPTY_EVIDENCE}
        logged |= {"log_origin": mallory.id.removeprefix("spiffe://")}
        callee.takes(mallory, mallory.tokens(mallory.node(), ext=logged))
    finally:
        callee.asks(None)
    callee.takes(mallory, mallory.tokens(mallory.node()))


def test_a_key_of_the_other_algorithm_is_as_good(callee: Callee, domain: TrustDomain, tmp_path: Path) -> None:
    """Also under names of the first generation, in one workflow with nodes of ours."""
    m = Attacker(domain, "elliptic", AGENT_A, AGENT_B)
    m.signer = KeySigner.of(ec.generate_private_key(ec.SECP256R1()))
    cert = m.files.directory / "evidence-es256.pem"
    certify(m, domain, m.signer.public_key(), cert, timedelta())
    assert m.signer.alg == "ES256"
    taken = callee.takes(m, of_generation("wimse-exec+jwt", "par", "ext")(m, m))
    [came] = taken["action_parameters"]["parents"]
    # The first generation's names alone over what the callee's own node says, which has both.
    after_ours = {"wid": taken["wid"], "par": [taken["node"]], "pred": None, "ext": {"depth": 1}, "ect_ext": None}
    back = callee.takes(m, m.tokens(m.node(**after_ours)))
    assert "pending_parents" not in back["action_parameters"]

    path = tmp_path / "callee.jsonl"
    with contextlib.closing(SqliteReader(callee.monitor.path / "data" / "ledger.sqlite")) as reader:
        write_export(reader, path)
    verified = chain.verify_chain([path], domain.identity_ca.read_bytes(), [evidence_jwk(cert.read_bytes())])
    of_workflow = {jti: node for (wid, jti), node in verified.nodes.items() if wid == taken["wid"]}
    line, at = [], of_workflow[back["node"]]
    while True:
        line.append((at.ect.jti, jws.parse_compact(at.ect.token, typ=TYPES).header["alg"]))
        if not at.parents:
            break
        [at] = at.parents
    sent = back["action_parameters"]["parents"][0]
    assert line == [(back["node"], "EdDSA"), (sent, "ES256"), (taken["node"], "EdDSA"), (came, "ES256")]
    assert [p for p in verified.problems if p.jti in of_workflow] == []


@pytest.mark.parametrize("who", ["nobody", "one of another trust domain", "an agent"])
def test_whoever_is_no_monitor_of_ours(
    callee: Callee, domain: TrustDomain, tmp_path: Path, mallory: Attacker, who: str
) -> None:
    """With good tokens, which have not been sent yet."""
    arrived = len(callee.agent.requests)
    sent = mallory.tokens(mallory.node())
    if who == "an agent":
        files = domain.path / "agents" / "default"
        response = mallory.send(callee.monitor, *sent, context=tls(domain, files / "cert.pem", files / "key.pem"))
        assert (response.status_code, response.json()["error"]["data"]["reason"]) == (403, "default_deny")
    else:
        context = tls(domain)
        if who == "one of another trust domain":
            files = TrustDomain.create(tmp_path / "trust", "test.internal").add_monitor("mallory")
            context = tls(domain, files.cert, files.key)
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            mallory.send(callee.monitor, *sent, context=context)
    assert len(callee.agent.requests) == arrived
    callee.takes(mallory, sent)


REPLAYED = "was taken before"


def test_replay(callee: Callee, mallory: Attacker) -> None:
    claims = mallory.node()
    nodes, bets = mallory.tokens(claims)
    callee.takes(mallory, (nodes, bets))
    callee.refuses(mallory, (nodes, bets), "ect_replayed", REPLAYED)
    callee.refuses(mallory, (nodes, mallory.tokens(claims)[1]), "ect_replayed", REPLAYED)
    again = mallory.sign({**claims, "exec_act": "something_else"}, ect.TYP)
    callee.refuses(mallory, ([again], bets), "ect_replayed", REPLAYED)
    fresh = mallory.node(wid=claims["wid"])
    both = mallory.tokens(fresh)
    callee.refuses(mallory, (both[0] + nodes, both[1] + bets), "ect_replayed", REPLAYED)
    callee.takes(mallory, both)
    elsewhere = {**claims, "wid": new_id()}
    callee.refuses(mallory, ([mallory.sign(elsewhere, ect.TYP)], bets), "bet_invalid", "is of the workflow")
    taken = callee.takes(mallory, mallory.tokens(elsewhere))
    assert taken["wid"] == elsewhere["wid"], "an id is unique in its workflow, so this is another node"


def test_replay_at_one_time(callee: Callee, mallory: Attacker) -> None:
    sent = mallory.tokens(mallory.node())
    with ThreadPoolExecutor() as pool:
        answers = [*pool.map(lambda _: mallory.send(callee.monitor, *sent).status_code, range(6))]
    assert sorted(answers) == [200, *[403] * 5]


class Pair:
    """Two monitors, the agent of one of which has handed work to the agent of the other."""

    def __init__(self, caller: Monitor, callee: Callee, folder: Path) -> None:
        self.caller, self.callee, self.folder = caller, callee, folder
        [entry] = callee.delegations()
        [self.node], self.taken, self.wid = entry["action_parameters"]["parents"], entry["node"], entry["wid"]
        self.files = self.export()

    def export(self, name: str = "honest") -> list[Path]:
        """Evidence files of both as they are now."""
        paths = []
        for monitor in (self.caller, self.callee.monitor):
            path = self.folder / f"{name}-{monitor.name}.jsonl"
            with contextlib.closing(SqliteReader(monitor.path / "data" / "ledger.sqlite")) as reader:
                write_export(reader, path)
            paths.append(path)
        return paths

    def verify(self, *files: Path) -> tuple[int, list[tuple[str, str, str]]]:
        """What `lictor chain verify` ends with, and the problems: kind, words, about which token."""
        words = ["chain", "verify", *map(str, files), "--trust", str(self.caller.domain.identity_ca), "--json"]
        done = CliRunner().invoke(cli, words)
        shown = json.loads(done.stdout)
        logs = [("log", f"{one['verdict']}: {one['problem']}", "") for one in shown["logs"] if one["problem"]]
        return done.exit_code, [(p["kind"], p["what"], p["jti"]) for p in shown["chain"]["problems"]] + logs

    def attacked(self, log: Path | None, about: str) -> list[tuple[str, str]]:
        """What is found of one token in the files of all, after an attack that the callee could not see."""
        code, problems = self.verify(*self.export(about), *([log] if log else []))
        assert code == 1
        return [(kind, what) for kind, what, jti in problems if jti == about]


@pytest.fixture(scope="module")
def pair(share_monitor: Callable[..., Monitor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    rules = {**binding(delegation=[URN_B]), "subjects": ["spiffe://test.internal/monitor/*"]}
    with contextlib.closing(Server(None)) as agent:
        ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{agent.port}"'
        b = share_monitor("taking", {"inbound": rules}, ingress=ingress, start=False)
        url = f"https://127.0.0.1:{b.ingress_port}/"
        a = share_monitor(
            "giving",
            {"main": binding(delegation=[URN_B])},
            target(URN_B, "agent", f"{url}**", agent=AGENT_B),
            start=False,
        )
        with ThreadPoolExecutor() as pool:
            [*pool.map(Monitor.start, (a, b))]
        proxy = httpx.Proxy(a.url, ssl_context=a.agent_context())
        with httpx.Client(proxy=proxy, verify=a.target_context(), trust_env=False, timeout=30) as http:
            assert http.post(url, json=MESSAGE).status_code == 200
        for monitor in (a, b):
            monitor.outcome()
        yield Pair(a, Callee(b, agent), tmp_path_factory.mktemp("files"))


def test_the_chain_before_any_attack(pair: Pair) -> None:
    assert pair.verify(*pair.files) == (0, [])


@pytest.mark.parametrize("parent", ["what another handed on", "the work of another's agent"])
def test_a_forged_parent(pair: Pair, mallory: Attacker, domain: TrustDomain, parent: str) -> None:
    """Work hung under a node that was seen, and not given: a monitor that knows the node sees it at once."""
    above = pair.node if parent == "what another handed on" else pair.taken
    forged = mallory.tokens(mallory.node(wid=pair.wid, **after(above)))
    pair.callee.refuses(mallory, forged, "ect_invalid", "names a predecessor that is addressed to")
    giving = Attacker(domain, pair.caller.name, AGENT_A, AGENT_B)
    assert (
        "pending_parents"
        not in pair.callee.takes(giving, giving.tokens(giving.node(wid=pair.wid, **after(above))))["action_parameters"]
    ), "it was given to this one"


def test_a_forged_parent_that_the_callee_does_not_know(
    callee: Callee, pair: Pair, mallory: Attacker, tmp_path: Path
) -> None:
    """It says so in its entry; all logs together say what it is."""
    claims = mallory.node(wid=pair.wid, **after(pair.taken))
    taken = callee.takes(mallory, mallory.tokens(claims))
    assert taken["action_parameters"]["pending_parents"] == 1
    found = pair.attacked(mallory.log(tmp_path / "m.db", claims), claims["jti"])
    assert found[0][0] == "bad"
    assert f"node {claims['jti']} names a predecessor that is addressed to" in found[0][1]


def test_a_node_of_another_workflow(pair: Pair, mallory: Attacker, tmp_path: Path) -> None:
    claims = mallory.node(**after(pair.node))
    pair.callee.takes(mallory, mallory.tokens(claims))
    found = pair.attacked(mallory.log(tmp_path / "m.db", claims), claims["jti"])
    what = f"the predecessor {pair.node} of node {claims['jti']} is of another workflow ({pair.wid})"
    assert ("bad", what) in found


def test_a_shadow_dag_beside_the_log(pair: Pair, domain: TrustDomain) -> None:
    """A monitor that hands on work of one workflow twice, once in its log and once not."""
    m = Attacker(domain, pair.caller.name, AGENT_A, AGENT_B)
    claims = m.node(wid=pair.wid)
    pair.callee.takes(m, m.tokens(claims))
    found = pair.attacked(None, claims["jti"])
    assert [kind for kind, _ in found] == ["bad"]
    assert f"the log of {m.id} knows nothing of the delegation {claims['jti']}" in found[0][1]


def test_a_shadow_node_under_the_id_of_another(pair: Pair, mallory: Attacker, tmp_path: Path) -> None:
    """Shown to the callee in one way, and to whoever reads the log in another."""
    claims = mallory.node()
    pair.callee.takes(mallory, mallory.tokens(claims))
    log = mallory.log(tmp_path / "m.db", {**claims, "exec_act": "something_harmless"})
    assert ("bad", f"two different nodes have the id {claims['jti']}") in pair.attacked(log, claims["jti"])


def test_a_cycle(pair: Pair, mallory: Attacker, tmp_path: Path) -> None:
    """Of which only one part comes along."""
    one, other = new_id(), new_id()
    claims = mallory.node(jti=one, **after(other))
    pair.callee.takes(mallory, mallory.tokens(claims))
    log = mallory.log(tmp_path / "m.db", claims, mallory.node(jti=other, wid=claims["wid"], **after(one)))
    assert ("bad", f"node {one} is its own ancestor, or comes after one that is") in pair.attacked(log, one)


def test_too_many_ancestors(pair: Pair, mallory: Attacker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "MAX_ANCESTORS", 20)
    nodes = [mallory.node()]
    for _ in range(20):
        nodes.append(mallory.node(wid=nodes[0]["wid"], **after(nodes[-1]["jti"])))
    taken = pair.callee.takes(mallory, mallory.tokens(nodes[-1]))["node"]
    found = pair.attacked(mallory.log(tmp_path / "m.db", *nodes), taken)
    assert found == [("bad", f"node {taken} has more than 20 ancestors")]
    assert ect.MAX_ANCESTORS == 10_000


def test_a_pruned_branch(pair: Pair, tmp_path: Path) -> None:
    """The file of a monitor left out; any node or BET left out of all files; any node with all that hangs under it."""
    assert [pair.verify(path)[0] for path in pair.files] == [3, 3]
    files = {path: path.read_bytes().splitlines(keepends=True) for path in pair.files}
    tokens = {line for lines in files.values() for line in lines if line.startswith((b'{"ect"', b'{"bet"'))}
    claims = {line: jws.parse_compact(*json.loads(line).values(), typ=TYPES).claims() for line in tokens}
    branches = [{line} for line in tokens]
    branches += [
        {line, *(other for other in tokens if claims[line]["jti"] in claims[other]["pred"])} for line in tokens
    ]
    for n, branch in enumerate(branches):
        pruned = [tmp_path / f"{n}-{path.name}" for path in files]
        for path, lines in zip(pruned, files.values(), strict=True):
            path.write_bytes(b"".join(line for line in lines if line not in branch))
        code, problems = pair.verify(*pruned)
        assert (code in (1, 3), bool(problems)) == (True, True), [claims[line] for line in branch]
