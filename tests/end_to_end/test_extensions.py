"""Third-party criteria and classifiers in real processes: loaded by all of them, on record, told when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target
from third_party import CODE, install

URN = "urn:test:tool:odd"


def test_an_extension_judges_and_is_on_record(
    make_monitor: Callable[..., Monitor], outside: Outside, server: Server, tmp_path: Path
) -> None:
    site = install(tmp_path / "site")
    document = binding()
    document["expected_behaviors"] = [
        {"behavior_id": "b", "observable_actions": ["tool_call"], "compliance_criteria": {"type": "acme.even"}}
    ]
    monitor = make_monitor(
        "extended",
        {"main": document},
        target(URN, "tool", f"https://localhost:{server.port}/**", protocol="acme.header"),
        more='[extensions]\ncriteria = ["acme.even"]\nclassifiers = ["acme.header"]\n\n'
        f'[interception]\nupstream_ca = "{outside.ca}"\n',
        workers=2,
        start=False,
    )
    env = {"env": {**os.environ, "PYTHONPATH": str(site)}}
    monitor.start(**env)

    def call(name: str) -> tuple[int, str]:
        with Wire(monitor) as wire:
            answer = wire.tunnel(f"localhost:{server.port}").request("GET", "/x", f"X-Call: {name}")
        return answer.status, answer.json().get("reason", "")

    even, odd = ("a", "ab") if len(f"{URN}#call/a") % 2 == 1 else ("ab", "a")
    assert [call(even), call(odd)] == [(200, ""), (403, "odd")]
    assert len(server.requests) == 1
    first, actions = monitor.entries()[0], monitor.of_agents()
    assert first["action_type"] == "extensions"
    loaded = first["action_parameters"]["extensions"]
    assert [(e["kind"], e["name"], e["distribution"], e["version"]) for e in loaded] == [
        ("criteria", "acme.even", "acme-rules", "1.2"),
        ("classifiers", "acme.header", "acme-rules", "1.2"),
    ]
    assert {len(e["digest"]) for e in loaded} == {43}
    assert [a["action_target"] for a in actions if "outcome_of" not in a] == [f"{URN}#call/{even}", f"{URN}#call/{odd}"]

    monitor.stop()
    monitor.start(**env).stop()
    assert [e["action_type"] for e in monitor.entries()].count("extensions") == 1, "nothing changed"
    (site / "acme_rules.py").write_text(CODE + "\n# changed\n")
    monitor.start(**env).stop()
    said = [e["action_parameters"]["extensions"] for e in monitor.entries() if e["action_type"] == "extensions"]
    assert [extension["digest"] for extension in said[0]] != [extension["digest"] for extension in said[1]]
    process, monitor.process = monitor.launch(), None
    assert process.wait(30) == 2
    assert "extensions.criteria: 'acme.even' is not installed" in monitor.output()
