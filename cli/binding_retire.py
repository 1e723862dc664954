"""`lictor binding retire`: end a policy so that it cannot come back, and cannot be said to be merely lost."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.markup import escape

from ..bindings.registry import read
from ..bindings.schema import load_binding
from ..bindings.signing import sign, signature_path
from ..bindings.succession import next_version
from ..certs.files import write_atomically
from ..formats.errors import UsageError
from ..formats.keys import KeySigner
from .output import console, json_option, print_json

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, default=Path("trust/operator.key"), show_default=True, help="The operator's key.")
@json_option
def retire(file: Path, key: Path, as_json: bool) -> None:
    """End the policy of FILE: the next version of its binding, without behaviors, signed, in place of the file.

    A running monitor does not take it that a binding's file is gone, or is an older one: whoever can write the
    directory, but not sign, could do that. A retired binding observes nothing; its file stays where it is.
    """
    signer = KeySigner.from_file(key)
    binding = load_binding(read(file), str(file))
    if not binding.behaviors:
        raise UsageError(f"{file}: {binding.policy_id} is retired already")
    document = {**binding.document, "version": next_version(binding.version), "expected_behaviors": []}
    data = (json.dumps(document, indent=2) + "\n").encode()
    retired = load_binding(data, str(file))
    try:
        write_atomically(signature_path(file), (sign(retired.document, signer) + "\n").encode("ascii"))
        write_atomically(file, data)
    except OSError as e:
        raise UsageError(f"{file} cannot be written: {e.strerror}") from None
    if as_json:
        print_json({"ok": True, "policy_id": retired.policy_id, "version": retired.version, "digest": retired.digest})
    else:
        console.print(f"retired {escape(retired.policy_id)}, as of version {retired.version}: {escape(str(file))}")
