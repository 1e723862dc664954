"""`lictor chain`: the tree, the verdict, exit codes."""

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
        monkeypatch.setattr("sys.argv", ["lictor", "chain", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_show_is_a_tree(call: Call, chain_files: Any) -> None:
    code, out, _ = call("show", *chain_files.files)
    assert code == 0
    lines = out.splitlines()
    depth = {name: min(line.find(name) for line in lines if name in line) for name in ("agent/a", "agent/b")}
    assert 0 < depth["agent/a"] < depth["agent/b"]
    assert "BET fail urn:lictor:policy:default-deny on delegation, 1 entry" in " ".join(out.split())
    assert "No signature was verified" in out


def test_show_names_what_is_missing(call: Call, chain_files: Any) -> None:
    code, out, _ = call("show", chain_files.two, "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["verdict"] == "gap"
    assert "predecessor" in shown["problems"][0]["what"]
    assert "1 predecessor not in the files" in " ".join(call("show", chain_files.two)[1].replace("│", "").split())


def test_verify_the_whole(call: Call, chain_files: Any) -> None:
    code, out, _ = call("verify", *chain_files.files, "--trust", chain_files.ca)
    assert code == 0
    assert "intact chain of" in out
    code, out, _ = call("verify", *chain_files.files, "--trust", chain_files.ca, "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["chain"]["verdict"]) == (0, True, "intact")
    assert [log["verdict"] for log in report["logs"]] == ["intact", "intact"]


def test_verify_one_side_only(call: Call, chain_files: Any) -> None:
    code, out, _ = call("verify", chain_files.two, "--trust", chain_files.ca)
    assert code == 3
    assert "is in none of the files" in out


def test_verify_an_altered_entry(call: Call, chain_files: Any, tmp_path: Path) -> None:
    altered = tmp_path / "altered.jsonl"
    data = chain_files.one.read_bytes()
    assert data.count(b"https://evil.test/") >= 1
    altered.write_bytes(data.replace(b'"action_target":"https://evil.test/"', b'"action_target":"https://good.test/"'))
    code, out, _ = call("verify", altered, chain_files.two, "--trust", chain_files.ca)
    assert code == 1
    assert "an entry was altered" in out
    assert call("verify", altered, "--trust", chain_files.ca)[0] == 1
    two = tmp_path / "two.jsonl"
    two.write_bytes(chain_files.two.read_bytes().replace(b'"method":"POST"', b'"method":"GETS"'))
    code, out, _ = call("verify", two, "--trust", chain_files.ca)
    assert ("is in none of the files" in out, code) == (True, 1)


def test_verify_a_log_that_was_cut_off(call: Call, chain_files: Any, tmp_path: Path) -> None:
    cut, lines = tmp_path / "cut.jsonl", chain_files.one.read_bytes().splitlines(keepends=True)
    for end in range(2, len(lines)):
        cut.write_bytes(b"".join(lines[:end]))
        code, out, _ = call("verify", cut, chain_files.two, "--trust", chain_files.ca)
        assert (code, out.startswith("prefix only log")) == (3, True), (end, out)
        assert "bad" not in out.split()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["verify", "FILE"], "--trust CA.PEM"),
        (["verify", "absent.jsonl", "--trust", "CA"], "absent.jsonl cannot be read"),
        (["show", "absent.jsonl"], "absent.jsonl cannot be read"),
        (["show"], "Missing argument"),
    ],
)
def test_wrong_use(call: Call, chain_files: Any, args: list[str], message: str) -> None:
    given = {"CA": chain_files.ca, "FILE": chain_files.one}
    code, _, err = call(*(given.get(arg, arg) for arg in args))
    assert (code, message in err) == (2, True)


def test_verify_two_histories_of_one_log(call: Call, chain_files: Any, two_histories: tuple[Path, Path]) -> None:
    left, right = two_histories
    for one in two_histories:
        assert call("verify", one, chain_files.one, chain_files.two, "--trust", chain_files.ca)[0] == 0
    code, out, _ = call("verify", left, right, chain_files.two, "--trust", chain_files.ca)
    assert code == 1
    said = " ".join(out.split())
    assert f"two histories: {left} and {right} differ in their first" in said
    assert said.count("intact log") == 3
