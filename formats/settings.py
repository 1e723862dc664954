"""Configuration in TOML, checked against a JSON Schema; an error names the key, and for an unknown one the nearest.

Where a schema has a `$comment`, that is the error.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

from .errors import FormatError, UsageError
from .spiffe import SpiffeId


@cache
def schema_of(package: str, file: str) -> dict[str, Any]:
    """A JSON Schema that lies in a package."""
    loaded: dict[str, Any] = json.loads(resources.files(package).joinpath(file).read_text("utf-8"))
    return loaded


def read_settings(path: Path, schema: Mapping[str, Any], hint: str) -> dict[str, Any]:
    """The checked document. Raises UsageError that names every key that is wrong; `hint`: how to come by a file."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no {path}: {hint}") from None
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path} is not TOML: {e}") from None
    problems = [*_not_finite(document), *_problems(document, schema)]
    if problems:
        raise UsageError(f"{path}: " + "; ".join(problems))
    return document


def address(text: str, key: str) -> tuple[str, int]:
    """(host, port) of `host:port`, whose form is checked. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not 0 < int(port) < 65536:
        raise UsageError(f"{key}: the port {port} is not between 1 and 65535")
    return host.strip("[]"), int(port)


def spiffe_id(text: str, key: str) -> str:
    """The SPIFFE ID that is the value of `key`. Raises UsageError."""
    try:
        return str(SpiffeId.parse(text))
    except FormatError as e:
        raise UsageError(f"{key}: {e}") from None


def _problems(document: dict[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(document), key=lambda e: [str(part) for part in e.absolute_path]):
        where = _where(error.absolute_path)
        if error.validator == "additionalProperties":
            known = list(error.schema["properties"])
            for name in sorted(set(error.instance) - set(known)):
                yield f"unknown key {where + '.' if where else ''}{name}{_nearest(name, known)}"
        else:
            yield f"{where or 'the file'}: {error.schema.get('$comment', error.message)}"


def _not_finite(value: Any, where: str = "") -> Iterator[str]:
    """TOML has nan and inf, which no comparison of a schema catches."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} is not a finite number"
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(inner, f"{where}.{name}" if where else f"{name}")


def _where(path: Any) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {near[0]}?" if near else f" (known here: {', '.join(known)})"
