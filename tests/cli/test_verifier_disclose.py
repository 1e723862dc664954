"""`lictor verifier disclose` and `ask` against a service that runs, and what they say when they cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from disclosing import KEPT, RULES, entry, log_of
from end_to_end.world import free_port
from serving import AGENT, Served, serving

from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.cli.init import write_binding
from lictor.formats.errors import UsageError, VerificationError


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("disclose") / "trust", "v.test")
    made.add_verifier("v")
    made.add_monitor("one")
    for name in ("good", "nobody"):
        made.add_agent(name)
    return made


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("partner") / "trust", "w.test")
    made.add_agent("good")
    return made


def exchange(folder: Path, of: TrustDomain) -> Path:
    path = folder / f"{of.name}.json"
    path.write_text(json.dumps(make_bundle(of)))
    return path


@pytest.fixture
async def served(tmp_path: Path, domain: TrustDomain, partner: TrustDomain) -> AsyncIterator[Served]:
    write_binding(tmp_path / "known" / "p.json", RULES, domain)
    more = 'relying_parties = ["spiffe://v.test/agent/good", "spiffe://w.test/agent/good"]\n'
    more += '[references]\ndirectory = "known"\n'
    more += f'[[federation]]\ntrust_domain = "w.test"\nbundle = "{exchange(tmp_path, partner)}"\n'
    async with serving(tmp_path, domain, more) as found:
        yield found


async def call(
    served: Served, command: str, *words: object, of: TrustDomain | None = None, who: str = "good"
) -> Result:
    trust = (of or served.domain).path
    more = ("--url", f"https://127.0.0.1:{served.port}", "--trust", trust, "--as", who)
    arguments = ["verifier", command, *map(str, (*words, *more))]
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments)


async def files(folder: Path, domain: TrustDomain, **texts: dict[str, Any]) -> list[Path]:
    """A file for each entry of one log."""
    paths = []
    for name, text in zip(texts, await log_of(folder, domain, "one", *texts.values()), strict=True):
        path = folder / f"{name}.json"
        path.write_text(text)
        paths.append(path)
    return paths


async def test_each_file_gets_an_answer_and_the_worst_is_the_exit_code(
    served: Served, domain: TrustDomain, tmp_path: Path
) -> None:
    unknown = entry("urn:test:good", behaviors=[{**entry("x")["behaviors"][0], "binding": "sha-256:" + "0" * 64}])
    good, doubtful, bad = await files(
        tmp_path, domain, good=entry("urn:test:good"), doubtful=unknown, bad=entry("urn:test:bad")
    )
    for paths, code, verdicts in (
        ([good], 0, ["agrees"]),
        ([good, doubtful], 3, ["agrees", "undecided"]),
        ([good, bad, doubtful], 1, ["agrees", "misjudged", "undecided"]),
    ):
        done = await call(served, "disclose", *paths, "--json")
        said = json.loads(done.stdout)
        assert (done.exit_code, said["ok"]) == (code, code == 0), done.output
        assert [(one["file"], one["verdict"]) for one in said["disclosures"]] == list(
            zip(map(str, paths), verdicts, strict=True)
        )
    assert (said["disclosures"][1]["monitor"], said["disclosures"][1]["seq"]) == ("spiffe://v.test/monitor/one", 2)
    done = await call(served, "disclose", bad, good)
    assert done.exit_code == 1
    assert f"misjudged  {bad}: entry 2 of spiffe://v.test/monitor/one, of {AGENT}" in done.stdout
    assert "bhv-tool_call: recorded pass, by the reference copy fail" in done.stdout
    assert f"agrees  {good}" in done.stdout


async def test_what_proves_nothing(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    good, other = await files(tmp_path, domain, good=entry("urn:test:good"), other=entry("urn:test:good"))
    other.write_text(other.read_text().replace("index 1", "index 0"))
    done = await call(served, "disclose", good, other, "--json")
    first, second = json.loads(done.stdout)["disclosures"]
    assert (done.exit_code, first["verdict"], second["verdict"]) == (1, "agrees", "refused")
    assert "is not entry 0 of the log" in second["problem"]
    for text, what in (("{}", "required property"), ("no JSON", "JSON object"), (f'["{KEPT}"]', "JSON object")):
        other.write_text(text)
        done = await call(served, "disclose", other)
        assert (done.exit_code, what in done.stdout) == (1, True), done.output
    other.write_bytes(b"\xff")
    assert "is not UTF-8" in (await call(served, "disclose", other)).stdout


async def test_who_may_not(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    (good,) = await files(tmp_path, domain, good=entry("urn:test:good"))
    done = await call(served, "disclose", good, who="nobody")
    assert (done.exit_code, "spiffe://v.test/agent/nobody may not hand disclosures" in done.stdout) == (1, True)


async def test_a_verifier_that_does_not_answer(domain: TrustDomain, tmp_path: Path) -> None:
    one, two = await files(tmp_path, domain, one=entry("urn:test:good"), two=entry("urn:test:good"))
    done = await call(Served(domain, free_port()), "disclose", one, two, "--json")
    (said,) = json.loads(done.stdout)["disclosures"]
    assert (done.exit_code, said["verdict"], "does not answer" in said["problem"]) == (3, "unanswered", True)
    done = await call(Served(domain, free_port()), "disclose", one)
    assert (done.exit_code, "does not answer" in done.stdout) == (3, True)


async def test_a_file_that_is_not_there(served: Served, tmp_path: Path) -> None:
    done = await call(served, "disclose", tmp_path / "none.json")
    assert isinstance(done.exception, UsageError)
    assert "none.json cannot be read" in str(done.exception)


async def test_the_verifier_of_a_partner(
    served: Served, domain: TrustDomain, partner: TrustDomain, tmp_path: Path
) -> None:
    (good,) = await files(tmp_path, domain, good=entry("urn:test:good"))
    bundle = exchange(tmp_path, domain)
    for command, what, code in (("ask", AGENT, 3), ("disclose", good, 0)):
        done = await call(served, command, what, "--bundle", bundle, "--json", of=partner)
        assert done.exit_code == code, done.output
        named = "--verifier", "spiffe://v.test/verifier/v"
        assert (await call(served, command, what, "--bundle", bundle, *named, of=partner)).exit_code == code
        done = await call(served, command, what, of=partner)
        assert (done.exit_code, "its bundle is needed (--bundle)" in done.output) == (3, True), done.output
    asked = json.loads((await call(served, "ask", AGENT, "--bundle", bundle, "--json", of=partner)).stdout)
    assert asked["verifier"] == "spiffe://v.test/verifier/v"


async def test_nothing_is_asked_of_another_server(
    served: Served, domain: TrustDomain, partner: TrustDomain, tmp_path: Path
) -> None:
    (good,) = await files(tmp_path, domain, good=entry("urn:test:good"))
    other, bundle = ("--verifier", "spiffe://v.test/verifier/w"), ("--bundle", exchange(tmp_path, domain))
    expected = "the server is spiffe://v.test/verifier/v, expected spiffe://v.test/verifier/w"
    for of, more in ((domain, other), (partner, (*other, *bundle))):
        done = await call(served, "ask", AGENT, *more, of=of)
        assert isinstance(done.exception, VerificationError)
        assert expected in str(done.exception)
        done = await call(served, "disclose", good, *more, of=of)
        assert (done.exit_code, expected in done.stdout) == (1, True), done.output


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--verifier", "spiffe://w.test/verifier/v"), "is of the trust domain w.test.*v.test"),
        (("--verifier", "spiffe://third.test/verifier/v"), "is of the trust domain third.test"),
        (("--verifier", "v"), "--verifier: .*'v' is not a SPIFFE ID"),
    ],
)
async def test_a_verifier_of_another_domain_than_the_bundle(
    domain: TrustDomain, partner: TrustDomain, tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    bundle = ("--bundle", exchange(tmp_path, domain))
    done = await call(Served(domain, free_port()), "ask", AGENT, *bundle, *words, of=partner)
    with pytest.raises(UsageError, match=what):
        raise done.exception or AssertionError(done.output)


@pytest.mark.parametrize("command", ["ask", "disclose"])
async def test_a_bundle_that_cannot_be_used(domain: TrustDomain, tmp_path: Path, command: str) -> None:
    (good,) = await files(tmp_path, domain, good=entry("urn:test:good"))
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    done = await call(Served(domain, free_port()), command, AGENT if command == "ask" else good, "--bundle", bad)
    assert isinstance(done.exception, UsageError)
    assert "cannot be relied on" in str(done.exception)
