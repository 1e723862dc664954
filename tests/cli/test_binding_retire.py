"""`lictor binding retire` makes what a running monitor takes for the end of a policy."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.bindings.registry import load_directory
from lictor.bindings.succession import Past, Succession
from lictor.cli.binding import command
from lictor.formats.keys import KeySigner, write_private

GOOD = Path(__file__).parents[1] / "bindings" / "data" / "good" / "the_example_of_the_draft.json"


def test_a_retired_binding_follows_the_one_that_it_ends(tmp_path: Path) -> None:
    key = tmp_path / "operator.key"
    write_private(key, ed25519.Ed25519PrivateKey.generate())
    signer = KeySigner.from_file(key)
    bindings, file = tmp_path / "bindings", tmp_path / "bindings" / "policy.json"
    bindings.mkdir()
    file.write_bytes(GOOD.read_bytes())
    assert CliRunner().invoke(command, ["sign", str(file), "--key", str(key)]).exit_code == 0
    (before,) = load_directory(bindings, {signer.kid: signer.public_key()})

    done = CliRunner().invoke(command, ["retire", str(file), "--key", str(key), "--json"])
    assert json.loads(done.output)["version"] == "1.1.0"
    (after,) = load_directory(bindings, {signer.kid: signer.public_key()})
    assert (after.policy_id, after.behaviors, after.subjects) == (before.policy_id, (), before.subjects)
    Succession([Past.of(before.document, before.digest)]).check([after])
    shown = CliRunner().invoke(command, ["check", str(file)])
    assert shown.exit_code == 0
    assert "retired: observes nothing" in shown.output

    again = CliRunner().invoke(command, ["retire", str(file), "--key", str(key)])
    assert "is retired already" in str(again.exception)
