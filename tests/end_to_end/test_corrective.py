"""A Verifier that acts: what an agent did makes it contraindicated, and that has it put in quarantine."""

from __future__ import annotations

from pathlib import Path

from end_to_end.verifying import AGENT, Start, placed
from end_to_end.wire import Wire
from end_to_end.world import Outside, until

from lictor.certs.domain import TrustDomain


def test_from_a_violation_to_quarantine(
    tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside
) -> None:
    with placed(tmp_path, domain, make_monitor, outside) as place:
        verifier, monitor = place.verifier, place.monitor
        allowed = f'[orders]\nallow = {{ "{verifier.files.spiffe_id}" = ["quarantine"] }}\n'
        monitor.config.write_text(monitor.config.read_text().replace("[orders]\n", allowed))
        verifier.turns_to(monitor, more='[[corrective]]\norder = "quarantine"\n')
        monitor.start()
        assert place.get().status == 200
        place.all_there()
        assert [e for e in monitor.entries() if e["action_type"] == "agent_quarantine"] == []
        assert place.get("/closed/x").status == 403
        said = monitor.wait_for(lambda e: e["action_type"] == "agent_quarantine")["action_parameters"]
        assert (said["agent"], said["by"]) == (AGENT, str(verifier.files.spiffe_id))
        assert said["why"].startswith("contraindicated: ")
        with Wire(monitor) as wire:
            answer = until(lambda: (found := wire.connect("localhost:1")).status == 403 and found)
        assert answer.json()["reason"] == "quarantined"
        assert verifier.order("hold", agent=AGENT) == 403, "it may order what it is let, and nothing else"
