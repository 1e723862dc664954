"""`lictor binding` as a person and as a script call it."""

import json
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import Done
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.formats.keys import KeySigner, to_jwk, write_private

DATA = Path(__file__).parents[1] / "bindings" / "data"
GOOD = DATA / "good" / "the_example_of_the_draft.json"


def lictor(cwd: Path, *args: str | Path) -> Done:
    return command_line.lictor("binding", *args, cwd=cwd)


def spawned(cwd: Path, *args: str | Path) -> Done:
    return command_line.spawned("binding", *args, cwd=cwd)


def answer(cwd: Path, *args: str | Path) -> tuple[int, Any]:
    done = lictor(cwd, *args, "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with trust/operator.key, trust/operator.jwk and one unsigned binding, policy.json."""
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "trust").mkdir()
    write_private(tmp_path / "trust" / "operator.key", key)
    (tmp_path / "trust" / "operator.jwk").write_text(json.dumps(to_jwk(key.public_key())))
    (tmp_path / "policy.json").write_bytes(GOOD.read_bytes())
    return tmp_path


def test_check_says_what_is_good(tmp_path: Path) -> None:
    done = lictor(tmp_path, "check", DATA / "good")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("good ") == 3
    assert "urn:example:policy:data-access 1.0 (bhv-001) for all agents" in done.stdout
    code, result = answer(tmp_path, "check", GOOD)
    assert (code, result["ok"], result["bindings"][0]["behaviors"]) == (0, True, ["bhv-001"])


def test_check_says_what_is_bad_and_goes_on(tmp_path: Path) -> None:
    bad = DATA / "broken" / "misspelt_member.json"
    done = spawned(tmp_path, "check", bad, GOOD)
    assert done.returncode == 1
    assert f"bad  {bad}: $: unknown member 'subject'; did you mean 'subjects'?" in done.stdout
    assert "good " in done.stdout
    code, result = answer(tmp_path, "check", bad, GOOD)
    assert (code, result["ok"], [item["ok"] for item in result["bindings"]]) == (1, False, [False, True])


def test_check_finds_a_policy_id_twice(place: Path) -> None:
    (place / "second.json").write_bytes(GOOD.read_bytes())
    code, result = answer(place, "check", ".")
    assert code == 1
    assert result["bindings"][1]["error"] == (
        "second.json: the policy_id urn:example:policy:data-access is already in policy.json"
    )


def test_check_of_one_file_named_twice_is_not_a_conflict(place: Path) -> None:
    assert answer(place, "check", "policy.json", "policy.json")[0] == 0


def test_check_with_nothing_to_check(tmp_path: Path) -> None:
    for args, complaint in (
        (("check",), "Missing argument"),
        (("check", "none.json"), "lictor: none.json does not exist"),
        (("check", "."), "lictor: the directory . has no *.json"),
    ):
        done = lictor(tmp_path, *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr


def test_markup_in_a_binding_is_only_text(tmp_path: Path) -> None:
    document = json.loads(GOOD.read_bytes())
    document["policy_id"] = "urn:example:[red]x[/nothing]"
    (tmp_path / "a.json").write_text(json.dumps(document))
    done = lictor(tmp_path, "check", "a.json")
    assert done.returncode == 0
    assert "urn:example:[red]x[/nothing]" in done.stdout


def test_sign_then_verify(place: Path) -> None:
    code, signed = answer(place, "sign", "policy.json")
    assert (code, signed["signature"]) == (0, "policy.json.sig")
    assert sorted(path.name for path in place.iterdir()) == ["policy.json", "policy.json.sig", "trust"]
    code, verified = answer(place, "verify", "policy.json")
    assert (code, verified["ok"], verified["kid"]) == (0, True, signed["kid"])
    done = lictor(place, "verify", "policy.json", "--key", "trust/operator.jwk")
    assert (done.returncode, done.stdout[:5]) == (0, "good ")


def test_sign_again_replaces(place: Path) -> None:
    lictor(place, "sign", "policy.json")
    document = json.loads(GOOD.read_bytes())
    (place / "policy.json").write_text(json.dumps({**document, "version": "1.1"}))
    assert answer(place, "verify", "policy.json")[0] == 1
    assert "signed urn:example:policy:data-access 1.1 by" in spawned(place, "sign", "policy.json").stdout
    assert answer(place, "verify", "policy.json")[0] == 0


def test_verify_says_no(place: Path) -> None:
    done = spawned(place, "verify", "policy.json")
    assert (done.returncode, done.stdout) == (1, "bad  policy.json: not signed: there is no policy.json.sig\n")
    lictor(place, "sign", "policy.json")
    (place / "policy.json").write_text(GOOD.read_text().replace("approved-1", "approved-3"))
    assert answer(place, "verify", "policy.json")[1]["error"] == "the signature is wrong"
    other = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
    (place / "other.jwk").write_text(json.dumps(to_jwk(other.public_key())))
    code, result = answer(place, "verify", "policy.json", "--key", "other.jwk")
    assert (code, result["kid"]) == (1, None)
    assert "which is not trusted here" in result["error"]


def test_what_does_not_pass_check_is_not_signed(place: Path) -> None:
    (place / "policy.json").write_bytes((DATA / "broken" / "unknown_criteria_type.json").read_bytes())
    done = lictor(place, "sign", "policy.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the criteria type 'magic' is not known here; known: allowlist, " in done.stderr
    assert not (place / "policy.json.sig").exists()


def test_wrong_keys_are_wrong_use(place: Path) -> None:
    lictor(place, "sign", "policy.json")
    for args, complaint in (
        (("sign", "policy.json", "--key", "none.key"), "the key none.key cannot be read"),
        (("sign", "policy.json", "--key", "trust/operator.jwk"), "trust/operator.jwk"),
        (("verify", "policy.json", "--key", "none.jwk"), "the key none.jwk cannot be read"),
        (("verify", "policy.json", "--key", "policy.json"), "policy.json is not a public key"),
        (("sign", "none.json"), "none.json cannot be read"),
        (("verify", "none.json"), "none.json cannot be read"),
    ):
        done = lictor(place, *args)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_a_signature_that_cannot_be_written(place: Path) -> None:
    (place / "policy.json.sig").mkdir()
    done = spawned(place, "sign", "policy.json")
    assert done.returncode == 2
    assert "the signature policy.json.sig cannot be written" in done.stderr
    assert [path.name for path in place.glob(".policy*")] == []


def _doubtful(place: Path) -> Path:
    document = json.loads(GOOD.read_bytes())
    document["expected_behaviors"][0]["compliance_criteria"]["values"] = ["urn:xx:*", "urn:xx:ds:a"]
    (place / "policy.json").write_text(json.dumps(document))
    return place / "policy.json"


def test_check_warns_of_what_is_doubtful(place: Path) -> None:
    file = _doubtful(place)
    done = lictor(place, "check", file)
    assert done.returncode == 0
    assert done.stdout.count("warn $.expected_behaviors[0].compliance_criteria.values[") == 2
    assert "urn:xx:ds:a adds nothing: urn:xx:* matches all of it" in done.stdout
    code, result = answer(place, "check", file, "--strict")
    assert (code, result["ok"], result["bindings"][0]["ok"]) == (1, False, True)
    assert [warning["kind"] for warning in result["bindings"][0]["warnings"]] == ["shadowed", "broad"]
    assert answer(place, "check", GOOD, "--strict")[0] == 0


def test_check_looks_at_the_bindings_of_a_directory_together(place: Path) -> None:
    other = json.loads(GOOD.read_bytes()) | {"policy_id": "urn:example:policy:other"}
    other["expected_behaviors"][0]["compliance_criteria"]["values"] = ["urn:other:ds"]
    (place / "zother.json").write_text(json.dumps(other))
    assert [b["warnings"] for b in answer(place, "check", "policy.json", "zother.json")[1]["bindings"]] == [[], []]
    _, result = answer(place, "check", ".", "policy.json")
    assert [[w["kind"] for w in b["warnings"]] for b in result["bindings"]] == [[], ["disjoint"]]
