"""`lictor bet`: what people see, what scripts read, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lictor.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lictor", "bet", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_show_says_what_it_says_and_that_nothing_was_verified(call: Call, chain_files: Any) -> None:
    code, out, _ = call("show", chain_files.refusal)
    assert code == 0
    for part in ("fail", "spiffe://chain.test/agent/a", "https://evil.test/ (default_deny)", "Nothing was verified"):
        assert part in out


def test_show_as_json(call: Call, chain_files: Any) -> None:
    code, out, _ = call("show", chain_files.one, "--json")
    assert code == 0
    assert [one["ext"]["trigger"] for one in json.loads(out)] == ["violation", "delegation"]


def test_verify_a_refusal_with_the_ca_alone(call: Call, chain_files: Any) -> None:
    """The keys of the monitors lie beside the CA of the trust domain."""
    code, out, _ = call("verify", f"Behavioral-Evidence: {chain_files.refusal}", "--trust", chain_files.ca)
    assert code == 0
    assert "good  signed by spiffe://chain.test/monitor/one" in out


def test_verify_elsewhere(call: Call, chain_files: Any, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(chain_files.ca.read_bytes())
    code, out, _ = call("verify", chain_files.refusal, "--trust", ca)
    assert code == 1
    assert "is known that the identity CA vouches for" in out
    assert call("verify", chain_files.refusal, "--trust", ca, "--keys", chain_files.one)[0] == 0
    code, out, _ = call("verify", chain_files.one, chain_files.two, "--trust", ca, "--kept", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)


def test_verify_by_audience_and_time(call: Call, chain_files: Any) -> None:
    good = ("verify", chain_files.refusal, "--trust", chain_files.ca)
    assert call(*good, "--audience", "spiffe://chain.test/agent/a")[0] == 0
    code, out, _ = call(*good, "--audience", "spiffe://chain.test/agent/z")
    assert (code, "not for us" in out) == (1, True)
    code, out, _ = call(*good, "--at", "2001-01-01")
    assert (code, "from the future" in out) == (1, True)
    code, out, _ = call(*good, "--at", "99999999999", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["bets"][0]["ok"]) == (1, False, False)
    assert "expired" in report["bets"][0]["problem"]
    assert call(*good, "--kept")[0] == 0


def _lines_of(kind: str, lines: list[bytes]) -> list[int]:
    return [number for number, line in enumerate(lines) if line.startswith(b'{"%s":' % kind.encode())]


@pytest.mark.parametrize(
    ("spoil", "code", "verdict", "shown", "message"),
    [
        (lambda lines: lines, 0, "intact", 2, ""),
        (lambda lines: lines[: _lines_of("bet", lines)[0] + 1], 3, "prefix_only", 1, "the file ends after line"),
        (lambda lines: lines[:-1], 3, "prefix_only", 2, "without its end line"),
        (lambda lines: lines[:-2] + lines[-1:], 3, "prefix_only", 2, "entries are missing at the end"),
        (lambda lines: _without(lines, _lines_of("bet", lines)[0]), 3, "gap", 1, "is missing before BET"),
        (lambda lines: _without(lines, _lines_of("entry", lines)[0]), 3, "gap", 2, "entry 0 is missing"),
        (lambda lines: [line.replace(b"evil", b"good") for line in lines], 1, "bad", 0, "an entry was altered"),
        (lambda lines: [*lines[:2], lines[_lines_of("bet", lines)[0]], *lines[2:]], 1, "bad", 0, "stands after one of"),
    ],
)
def test_verify_an_evidence_file(
    call: Call,
    chain_files: Any,
    tmp_path: Path,
    spoil: Callable[[list[bytes]], list[bytes]],
    code: int,
    verdict: str,
    shown: int,
    message: str,
) -> None:
    """What a file lacks or says wrongly is told of the file, beside what holds of each of its BETs."""
    file = tmp_path / "file.jsonl"
    file.write_bytes(b"".join(spoil(chain_files.one.read_bytes().splitlines(keepends=True))))
    args = ("verify", file, "--trust", chain_files.ca)
    found, out, _ = call(*args, "--json")
    report = json.loads(out)
    assert (found, report["ok"], len(report["bets"])) == (code, code == 0, shown)
    assert all(one["ok"] for one in report["bets"])
    assert [log["verdict"] for log in report["logs"]] == [verdict]
    assert message in json.dumps(report["logs"][0]["problem"])
    found, out, _ = call(*args)
    assert (found, out.count("good  signed by")) == (code, shown)
    assert f"{verdict.replace('_', ' ')} log {file}" in " ".join(out.split())
    assert message in " ".join(out.split())
    assert call(*args, chain_files.refusal)[0] == code


def test_verify_two_histories_of_one_log(call: Call, chain_files: Any, two_histories: tuple[Path, Path]) -> None:
    left, right = two_histories
    args = ("verify", chain_files.refusal, left, "--trust", chain_files.ca)
    assert call(*args, chain_files.one)[0] == 0
    code, out, _ = call(*args, right, "--json")
    report = json.loads(out)
    assert (code, report["ok"], [log["verdict"] for log in report["logs"]]) == (1, False, ["intact", "intact"])
    assert [one["verdict"] for one in report["problems"]] == ["bad"]
    code, out, _ = call(*args, right)
    assert (code, f"two histories: {left} and {right} differ in" in " ".join(out.split())) == (1, True)


def _without(lines: list[bytes], number: int) -> list[bytes]:
    return [*lines[:number], *lines[number + 1 :]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["verify", "nothing", "--trust", "CA"], "neither a token"),
        (["verify", "TOKEN"], "--trust CA.PEM"),
        (["verify", "TOKEN", "--trust", "absent.pem"], "absent.pem cannot be read"),
        (["verify", "TOKEN", "--trust", "CA", "--at", "yesterday"], "ISO 8601"),
        (["verify", "TOKEN", "--trust", "CA", "--at", "5", "--kept"], "exclude each other"),
        (["verify", "TOKEN", "--trust", "CA", "--keys", "absent"], "absent cannot be read"),
        (["verify", "--trust", "CA"], "Missing argument"),
    ],
)
def test_wrong_use(call: Call, chain_files: Any, args: list[str], message: str) -> None:
    given = {"CA": chain_files.ca, "TOKEN": chain_files.refusal}
    code, _, err = call(*(given.get(arg, arg) for arg in args))
    assert (code, message in err) == (2, True)


def test_nothing_steers_the_terminal(call: Call, chain_files: Any) -> None:
    code, out, _ = call("verify", "\x1b[2J.a.b", "--trust", chain_files.ca)
    assert code == 2
    assert "\x1b" not in out
