"""`lictor binding`: look at policies before they are in force, sign them, verify signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ..bindings.lint import Finding, lint
from ..bindings.model import Binding
from ..bindings.registry import read, read_signature
from ..bindings.schema import load_binding
from ..bindings.signing import read_keys, sign, signature_path, verify
from ..certs.files import write_atomically
from ..formats.errors import LictorError, UsageError, VerificationError
from ..formats.keys import KeySigner
from ..proxy.config import Config, load
from . import binding_explain, binding_learn, binding_replay, binding_retire
from .binding_files import find_files
from .output import console, json_option, print_json

_FILE = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Policies: check, sign, verify, explain, retire; draft one from a log, judge a log by another one."""


for _part in (binding_explain.command, binding_learn.learn, binding_replay.replay, binding_retire.retire):
    command.add_command(_part)


@command.command()
@click.argument("paths", metavar="FILE|DIR…", nargs=-1, required=True, type=_FILE)
@click.option("-c", "--config", type=_FILE, help="Configuration, to warn of targets that its catalog does not have.")
@click.option("--strict", is_flag=True, help="A warning is not good either.")
@json_option
@click.pass_context
def check(ctx: click.Context, paths: tuple[Path, ...], config: Path | None, strict: bool, as_json: bool) -> None:
    """Check bindings: form, criteria, patterns, and that no policy_id stands twice. Exit 1 if one is not good.

    Warns of what is probably not meant: values that add nothing or are never allowed, patterns that allow too much,
    criteria that end default deny. The bindings of a directory are looked at together.
    """
    settings = load(config) if config is not None else None
    results = _check_all(find_files(paths))
    _warn(results, paths, settings)
    good = all(result["ok"] and not (strict and result["warnings"]) for result in results)
    if as_json:
        print_json({"ok": good, "bindings": results})
    else:
        for result in results:
            _print_checked(result)
    ctx.exit(0 if good else 1)


@command.command(name="sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, default=Path("trust/operator.key"), show_default=True, help="The operator's key.")
@json_option
def sign_(file: Path, key: Path, as_json: bool) -> None:
    """Sign a binding: writes FILE.sig beside it. A binding that does not pass `check` is not signed."""
    signer = KeySigner.from_file(key)
    binding = load_binding(read(file), str(file))
    target = signature_path(file)
    _write(target, sign(binding.document, signer) + "\n")
    if as_json:
        print_json({"ok": True, "signature": str(target), "kid": signer.kid, **_facts(binding)})
    else:
        console.print(
            f"signed {escape(binding.policy_id)} {escape(binding.version)} by {signer.kid}: {escape(str(target))}"
        )


@command.command(name="verify")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, default=Path("trust/operator.jwk"), show_default=True, help="The public key (JWK).")
@json_option
@click.pass_context
def verify_(ctx: click.Context, file: Path, key: Path, as_json: bool) -> None:
    """Verify FILE.sig. Exit 1 if the binding is not signed, changed since, or signed by another key."""
    keys = read_keys(key)
    binding = load_binding(read(file), str(file))
    try:
        kid, error = _verified(binding, file, keys), None
    except VerificationError as e:
        kid, error = None, str(e)
    if as_json:
        print_json({"ok": error is None, "file": str(file), "kid": kid, "error": error, **_facts(binding)})
    elif error is None:
        console.print(f"[green]good[/] {escape(binding.policy_id)} {escape(binding.version)}, signed by {kid}")
    else:
        console.print(f"[red]bad[/]  {escape(str(file))}: {escape(error)}")
    ctx.exit(0 if error is None else 1)


def _verified(binding: Binding, file: Path, keys: Any) -> str:
    signature = read_signature(file)
    if signature is None:
        raise VerificationError(f"not signed: there is no {signature_path(file)}")
    return verify(binding.document, signature, keys)


def _check_all(files: list[Path]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    seen: dict[str, Path] = {}
    for file in files:
        data = read(file)
        try:
            binding = load_binding(data, str(file))
            other = seen.setdefault(binding.policy_id, file)
            if other is not file:
                raise UsageError(f"{file}: the policy_id {binding.policy_id} is already in {other}")
            results.append({"ok": True, "file": str(file), **_facts(binding), "warnings": []})
        except LictorError as e:
            results.append({"ok": False, "file": str(file), "error": str(e), "warnings": []})
    return results


def _warn(results: list[dict[str, Any]], paths: tuple[Path, ...], settings: Config | None) -> None:
    """Put what is doubtful about good bindings to their results."""
    good = {result["file"]: result for result in results if result["ok"]}
    for path in paths:
        bindings = {file: load_binding(read(file), str(file)) for file in find_files((path,)) if str(file) in good}
        for finding in _lint(list(bindings.values()), settings):
            file = next(file for file, binding in bindings.items() if binding.policy_id == finding.policy_id)
            warning = {"where": finding.where, "kind": finding.kind, "text": finding.text}
            if warning not in good[str(file)]["warnings"]:
                good[str(file)]["warnings"].append(warning)


def _lint(bindings: list[Binding], settings: Config | None) -> list[Finding]:
    if settings is None:
        return lint(bindings)
    own = settings.ingress.urn if settings.ingress is not None else None
    return lint(bindings, settings.catalog(), own)


def _facts(binding: Binding) -> dict[str, Any]:
    return {
        "policy_id": binding.policy_id,
        "version": binding.version,
        "digest": binding.digest,
        "behaviors": [behavior.behavior_id for behavior in binding.behaviors],
        "subjects": list(binding.subjects),
    }


def _print_checked(result: dict[str, Any]) -> None:
    if result["ok"]:
        behaviors = ", ".join(result["behaviors"]) or "retired: observes nothing"
        whom = ", ".join(result["subjects"]) or "all agents"
        named = escape(f"{result['file']}: {result['policy_id']} {result['version']}")
        console.print(f"[green]good[/] {named} ({escape(behaviors)}) for {escape(whom)}")
        for warning in result["warnings"]:
            console.print(f"[yellow]warn[/] {escape(warning['where'])}: {escape(warning['text'])}")
    else:
        console.print(f"[red]bad[/]  {escape(result['error'])}")


def _write(path: Path, text: str) -> None:
    """Replace the file at once, so that a reloading monitor never reads half a signature. Raises UsageError."""
    try:
        write_atomically(path, text.encode("ascii"))
    except OSError as e:
        raise UsageError(f"the signature {path} cannot be written: {e.strerror}") from None
