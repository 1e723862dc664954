"""What a Verifier makes of what monitors say of themselves: reference values, and what no honest monitor can say."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import described
import pytest
from pushed import Pusher

from lictor.certs.domain import TrustDomain
from lictor.evidence.description import Description
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.verifier.service import ear
from lictor.verifier.service.asking import verify
from lictor.verifier.service.config import load
from lictor.verifier.service.descriptions import ReferenceValues
from lictor.verifier.service.desk import Desk

MONITOR = "spiffe://example.test/monitor/one"
AGENT = "spiffe://v.test/agent/good"
EXTENSION = {"kind": "criteria", "name": "acme.even", "distribution": "acme", "version": "1", "digest": "x" * 43}


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("descriptions") / "trust", "v.test")
    made.add_verifier("v")
    made.add_agent("good")
    for monitor in ("one", "two"):
        made.add_monitor(monitor)
    return made


@pytest.fixture(scope="module")
def signer(domain: TrustDomain) -> KeySigner:
    return KeySigner.from_file(domain.monitor("one").evidence_key)


@pytest.mark.parametrize(
    ("software", "changes", "reasons"),
    [
        pytest.param({}, {}, [], id="no reference values"),
        pytest.param({"packages": ["a" * 64]}, {}, [], id="the package"),
        pytest.param({"packages": ["f" * 64, "a" * 64]}, {}, [], id="one of several packages"),
        pytest.param({"packages": ["f" * 64]}, {}, ["other_code"], id="another package"),
        pytest.param({"dependencies": ["b" * 64]}, {}, [], id="the dependencies"),
        pytest.param({"dependencies": ["f" * 64]}, {}, ["other_code"], id="other dependencies"),
        pytest.param({"versions": {"lictor": ["1.2.3"], "python": ["3.13.0"], "h2": ["4.3.0"]}}, {}, [], id="versions"),
        pytest.param({"versions": {"lictor": ["1.2.4"]}}, {}, ["other_code"], id="another version"),
        pytest.param({"versions": {"python": ["3.12.1"]}}, {}, ["other_code"], id="another Python"),
        pytest.param(
            {"versions": {"h2": ["4.2.0", "4.1.0"]}}, {}, ["other_code"], id="another version of a dependency"
        ),
        pytest.param({"versions": {"hpack": ["4.2.0"]}}, {}, ["other_code"], id="a dependency that is not there"),
        pytest.param(
            {"packages": ["a" * 64]}, {"extensions": [EXTENSION]}, ["other_code"], id="an extension beside it"
        ),
        pytest.param({"extensions": ["x" * 43]}, {"extensions": [EXTENSION]}, [], id="the extension"),
        pytest.param({"extensions": ["y" * 43]}, {"extensions": [EXTENSION]}, ["other_code"], id="another extension"),
        pytest.param(
            {"versions": {"h2": ["4.3.0"]}}, {"extensions": [EXTENSION]}, [], id="extensions are not asked for"
        ),
        pytest.param({"configuration": "c" * 43}, {}, [], id="the configuration"),
        pytest.param({"configuration": "f" * 43}, {}, ["other_configuration"], id="another configuration"),
        pytest.param(
            {"packages": ["f" * 64], "configuration": "f" * 43}, {}, ["other_code", "other_configuration"], id="both"
        ),
    ],
)
def test_reference_values(
    software: dict[str, Any], changes: dict[str, Any], reasons: list[str], signer: KeySigner
) -> None:
    configuration = software.pop("configuration", None)
    known = ReferenceValues.of(software, {MONITOR: [configuration] if configuration else []})
    found = list(known.reasons(MONITOR, described.made(signer, **changes)))
    assert [one.what for one in found] == reasons
    assert {one.what: one.status for one in found}.get("other_code", "contraindicated") == "contraindicated"
    assert {one.what: one.status for one in found}.get("other_configuration", "warning") == "warning"
    silent = [one.what for one in known.reasons(MONITOR, None)]
    assert silent == (["undescribed"] if software or configuration else [])


def test_configurations_are_a_monitors_own(signer: KeySigner) -> None:
    known = ReferenceValues.of({}, {MONITOR: ["f" * 43]})
    assert [*known.reasons("spiffe://example.test/monitor/two", described.made(signer))] == []
    assert [*known.reasons("spiffe://example.test/monitor/two", None)] == []


class Scene:
    """A Verifier's desk, and a monitor that describes itself and pushes."""

    def __init__(self, folder: Path, domain: TrustDomain, more: str = "") -> None:
        self.domain = domain
        path = folder / "verifier.toml"
        path.write_text(
            f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{domain.path}"\nregister = "r.db"\n{more}', "utf-8"
        )
        self.desk = Desk(load(path))
        self.pusher = Pusher(domain.monitor("one"), AGENT)
        self.signer, self.now = self.pusher.signer, int(time.time())

    def describe(self, monitor: str = "one", **changes: Any) -> Description:
        return described.made(self.signer, origin=f"v.test/monitor/{monitor}", iat=self.now, **changes)

    def push(self, *tokens: str, bets: int = 1, under: str | None = None) -> None:
        """Push BETs that were issued `under` a description, with these descriptions."""
        ext = {"description": under} if under is not None else {}
        issued = [self.pusher.bet(ext=ext) for _ in range(bets)]
        verdicts = self.desk.take(self.pusher.id, [self.pusher.jwk], issued, tokens)
        assert all(verdict["accepted"] for verdict in verdicts)

    def said(self) -> ear.Submodule:
        token = self.desk.result("spiffe://v.test/agent/good", [AGENT])
        jwks = json.dumps({"keys": [self.desk.jwk]}).encode()
        ca = self.domain.identity_ca.read_bytes()
        return verify(token, jwks, ca, "spiffe://v.test/verifier/v", (AGENT,), time.time(), None).submodules[AGENT]

    def reasons(self) -> list[str]:
        return [reason["what"] for reason in self.said().behavior["reasons"] if reason["what"] != "not_checked"]


SOFTWARE = f'[software]\npackages = ["{"a" * 64}"]\n'


@pytest.fixture
def scene(tmp_path: Path, domain: TrustDomain) -> Scene:
    return Scene(tmp_path, domain, SOFTWARE)


def test_said_in_the_result(scene: Scene) -> None:
    found = scene.describe()
    scene.push(found.token, under=found.digest)
    said = scene.said()
    assert (said.status, scene.reasons()) == ("affirming", [])
    assert said.behavior["described"] == [
        {
            "monitor": "spiffe://v.test/monitor/one",
            "description": found.digest,
            "version": "1.2.3",
            "package": "a" * 64,
            "dependencies": "b" * 64,
            "configuration": "c" * 43,
        }
    ]


def test_whatever_monitors_name_there_is_a_result(scene: Scene) -> None:
    """Texts of a monitor's choice, each as long as claims may be, and one with nothing but a space."""
    for size in range(8):
        found = scene.describe(
            swversion=["\U0001f600" * 2048], configuration="\U0001f600" * 2048, python=" ", log_size=size
        )
        token = scene.pusher.bet(
            ext={"description": found.digest, "prev_bet": None}, bhv_policy=f"{size}" + "\U0001f600" * 2047
        )
        assert scene.desk.take(scene.pusher.id, [scene.pusher.jwk], [token], [found.token])[0]["accepted"]
    said = scene.said()
    assert (said.behavior["bets"], len(said.behavior["described"])) == (8, 8)
    assert max(map(len, said.policies)) <= 201


def test_other_code(scene: Scene) -> None:
    found = scene.describe(package="f" * 64)
    scene.push(found.token, under=found.digest)
    assert (scene.said().status, scene.reasons()) == ("contraindicated", ["other_code"])
    assert f"the package {'f' * 64} of lictor 1.2.3" in scene.said().behavior["reasons"][0]["text"]


def test_each_description_under_which_there_is_evidence_counts(scene: Scene) -> None:
    old, new = scene.describe(package="f" * 64), scene.describe(log_size=1)
    scene.push(old.token, under=old.digest)
    scene.push(new.token, under=new.digest)
    assert scene.reasons() == ["other_code"]
    assert [one["description"] for one in scene.said().behavior["described"]] == [new.digest, old.digest]


def test_evidence_under_a_description_that_did_not_come(scene: Scene) -> None:
    """It may come later."""
    found = scene.describe()
    scene.push(under=found.digest)
    assert (scene.said().status, scene.reasons()) == ("warning", ["undescribed"])
    assert "described" not in scene.said().behavior
    scene.push(found.token, under=found.digest)
    assert scene.reasons() == []


def test_a_monitor_that_describes_itself_not(scene: Scene) -> None:
    scene.push()
    assert (scene.said().status, scene.reasons()) == ("warning", ["undescribed"])


def test_without_reference_values_nothing_is_held_against_it(tmp_path: Path, domain: TrustDomain) -> None:
    scene = Scene(tmp_path, domain)
    scene.push()
    assert (scene.said().status, scene.reasons()) == ("affirming", [])


def tampered(scene: Scene) -> str:
    head, _, tail = scene.describe(package="f" * 64).token.split(".")
    return f"{head}.{scene.describe().token.split('.')[1]}.{tail}"


def signed_by_another(scene: Scene) -> str:
    return described.token(
        KeySigner.from_file(scene.domain.monitor("two").evidence_key),
        described.claims("v.test/monitor/one", iat=scene.now),
    )


def of_another(scene: Scene) -> str:
    return scene.describe("two").token


def posing(scene: Scene) -> str:
    return described.token(scene.signer, described.claims("v.test/monitor/one", iat=scene.now), typ="bet+jwt")


@pytest.mark.parametrize("forged", [tampered, signed_by_another, of_another, posing, lambda scene: "x.y.z"])
def test_one_that_does_not_hold_is_as_if_it_had_not_come(forged: Any, scene: Scene, caplog: Any) -> None:
    """And evidence does not wait for it. What the log would hold is named by its digest in all of them."""
    scene.push(forged(scene), under=scene.describe().digest)
    assert scene.reasons() == ["undescribed"]
    assert "description" in caplog.text


def test_an_old_one_is_brought_back(scene: Scene) -> None:
    """Its package is the right one; what came after it in the log was another."""
    good, bad = scene.describe(), scene.describe(package="f" * 64, log_size=1)
    scene.push(good.token, under=good.digest)
    scene.push(bad.token, under=bad.digest)
    assert "misdescribed" not in scene.reasons()
    scene.push(good.token, under=good.digest)
    assert "misdescribed" in scene.reasons()
    assert scene.said().status == "contraindicated"


def test_whatever_order_it_comes_in(scene: Scene) -> None:
    good, bad = scene.describe(), scene.describe(package="f" * 64, log_size=1)
    scene.push(good.token, bets=3, under=good.digest)
    assert scene.reasons() == []
    scene.push(bad.token, under=bad.digest)
    assert "misdescribed" in scene.reasons(), "the second of three BETs rests on the newer description already"


def test_two_at_one_place(scene: Scene) -> None:
    one, two = scene.describe(), scene.describe(configuration="f" * 43)
    scene.push(one.token, under=one.digest)
    scene.push(two.token, under=two.digest)
    assert "misdescribed" in scene.reasons()


def test_one_that_no_evidence_names_is_not_kept(scene: Scene) -> None:
    """Else a monitor could fill the register with them."""
    used, unused = scene.describe(), scene.describe(configuration="f" * 43)
    scene.push(unused.token, used.token, under=used.digest)
    assert [one["description"] for one in scene.said().behavior["described"]] == [used.digest]
    assert scene.reasons() == []


def test_forgotten_with_the_evidence(tmp_path: Path, domain: TrustDomain) -> None:
    scene = Scene(tmp_path, domain, "period_s = 3600\nretention_days = 1\n" + SOFTWARE)
    found = scene.describe()
    scene.push(found.token, under=found.digest)
    register = scene.desk._register
    assert register.descriptions.under(AGENT, 0, time.time()) != []
    register.forget(time.time() - 3600)
    assert len(register.descriptions.under(AGENT, 0, time.time())) == 1
    register.forget(time.time() + 3600)
    assert register.descriptions.under(AGENT, 0, time.time()) == []
    scene.push(under=found.digest)
    assert scene.reasons() == ["undescribed"], "the description is gone too"


@pytest.mark.parametrize(
    "table",
    [
        '[software]\npackages = ["abc"]\n',
        f'[software]\npackages = ["{"A" * 64}"]\n',
        "[software]\npackages = []\n",
        "[software]\n",
        '[software]\nversions = { lictor = "1" }\n',
        '[[monitor]]\nname = "spiffe://v.test/monitor/one"\nconfigurations = ["abc"]\n',
    ],
)
def test_bad_settings(table: str, tmp_path: Path, domain: TrustDomain) -> None:
    """Reference values that nothing can meet, or that would ask for nothing, are an error."""
    with pytest.raises(UsageError):
        Scene(tmp_path, domain, table)
