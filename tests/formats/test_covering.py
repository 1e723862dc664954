"""What signatures cover is read exactly, or not at all."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.formats import base64url
from lictor.formats.covering import MAX_OCTETS, covered_by_request, covered_by_response
from lictor.formats.errors import FormatError

MANY = range(17)
SIGNED = {"signature": ["sig=:c2ln:"]}


def inputs(*lines: str, signatures: tuple[str, ...] = ("sig=:c2ln:",)) -> dict[str, list[str]]:
    return {"signature-input": list(lines), "signature": list(signatures)}


def proof(claims: Any, header: Any = None) -> dict[str, list[str]]:
    parts = [header if header is not None else {"typ": "wpt+jwt", "alg": "ES256"}, claims]
    encoded = [base64url.encode(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts]
    return {"workload-proof-token": [".".join([*encoded, "c2ln"])]}


@pytest.mark.parametrize(
    ("lines", "covered"),
    [
        ({}, ""),
        (inputs("sig=()"), ""),
        (inputs('sig=("@method" "content-type");created=1;keyid="k"'), "@method content-type"),
        (inputs('sig=("execution-context")'), "execution-context"),
        (inputs('sig=("execution-context";bs "x-a";sf)'), "execution-context x-a"),
        (inputs('sig=("@query-param";name="execution-context")'), "@query-param"),
        (inputs('sig=("@method");note="execution-context"'), "@method"),
        (inputs('a=("x-a")', 'b=("x-b")', signatures=("b=:YQ==:, a=:YQ==:",)), "x-a x-b"),
        (inputs('a=("x-a"),\tb=("execution-context")', signatures=("a=:YQ==:", "b=:YQ==:")), "x-a execution-context"),
        (proof({"wth": "x"}), ""),
        (proof({"oth": {"execution-context": "h", "x-a": "h"}}), "execution-context x-a"),
        (proof({"oth": {"x-a": "h"}}, {"typ": "application/WPT+jwt"}), "x-a"),
        ({**inputs('sig=("x-a")'), **proof({"oth": {"x-b": "h"}})}, "x-a x-b"),
    ],
)
def test_what_is_covered(lines: dict[str, list[str]], covered: str) -> None:
    assert covered_by_request(lines) == frozenset(covered.split())


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("token in place of a string", inputs("sig=(execution-context)")),
        ("number", inputs("sig=(1)")),
        ("item in place of a list", inputs('sig="execution-context"')),
        ("flag", inputs("sig")),
        ("not closed", inputs('sig=("execution-context"')),
        ("two spaces for a comma", inputs('a=("x")  b=("y")', signatures=("a=:YQ==:, b=:YQ==:",))),
        ("comma at the end", inputs('sig=("x"),')),
        ("label in capitals", inputs('Sig=("x")')),
        ("name in capitals", inputs('sig=("Execution-Context")')),
        ("name with a space", inputs('sig=("execution-context ")')),
        ("empty name", inputs('sig=("")')),
        ("label twice", inputs('sig=("x"), sig=("execution-context")')),
        ("label in two lines", inputs('sig=("x")', 'sig=("execution-context")')),
        ("parameter twice", inputs('sig=("x";sf;sf=?0)')),
        ("of the request, in a request", inputs('sig=("execution-context";req)')),
        ("no signature", {"signature-input": ['sig=("x")']}),
        ("no input", SIGNED),
        ("empty input", inputs("")),
        ("signature of another label", inputs('gis=("x")')),
        ("one signature too many", inputs('sig=("x")', signatures=("sig=:YQ==:, b=:YQ==:",))),
        ("signature that is a string", inputs('sig=("x")', signatures=('sig="YQ=="',))),
        ("not ASCII", inputs('sig=("x\xe9")')),
        ("too long", inputs(f'sig=("{"x" * MAX_OCTETS}")')),
        ("too many", inputs(*map('s{}=("x")'.format, MANY), signatures=tuple(map("s{}=:YQ==:".format, MANY)))),
        ("two proofs", {"workload-proof-token": ["a.b.c", "a.b.c"]}),
        ("proof that is no token", {"workload-proof-token": ["x"]}),
        ("proof that is no JSON", proof(b"{")),
        ("proof with members twice", proof(b'{"oth":{},"oth":{"execution-context":"h"}}')),
        ("proof of another type", proof({"oth": {}}, {"typ": "jwt"})),
        ("proof without a type", proof({"oth": {}}, {})),
        ("proof whose names are a list", proof({"oth": ["execution-context"]})),
        ("proof with a name in capitals", proof({"oth": {"Execution-Context": "h"}})),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_an_error(what: str, lines: dict[str, list[str]]) -> None:
    with pytest.raises(FormatError):
        covered_by_request(lines)


def test_an_answer_may_cover_its_request_which_nobody_changes() -> None:
    assert covered_by_response(inputs('sig=("execution-context";req "@status")')) == {"@status"}
    assert covered_by_response(inputs('sig=("execution-context")')) == {"execution-context"}


@given(st.text(), st.text())
def test_nothing_else_is_raised(line: str, signature: str) -> None:
    for lines in (inputs(line, signatures=(signature,)), {"workload-proof-token": [line]}):
        with contextlib.suppress(FormatError):
            assert isinstance(covered_by_request(lines), frozenset)
