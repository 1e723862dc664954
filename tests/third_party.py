"""A little distribution of a third party, as pip would leave it in a folder: code, METADATA, entry points, RECORD."""

from __future__ import annotations

from pathlib import Path

CODE = '''
"""A criterion: targets have even length. A classifier: every request is a call of the tool that a header names."""
from lictor.bindings.criterion import PASS, Outcome, Stateless
from lictor.bindings.facts import Classified, Unclassifiable
from lictor.bindings.model import ActionType


class Even(Stateless):
    __slots__ = ("off",)

    def __init__(self, off):
        self.off = off

    def judge(self, action):
        return PASS if (len(action.target) + self.off) % 2 == 0 else Outcome(False, "odd", "Choose an even target.")


class EvenCriterion:
    schema = {
        "type": "object",
        "properties": {"type": {}, "off": {"type": "integer", "maximum": 9}},
        "additionalProperties": False,
    }

    def compile(self, criteria):
        return Even(10 // (criteria.get("off", 5) - 7))


class ByHeader:
    kinds = ("tool",)
    inside = ("call/",)

    def needs_body(self, method):
        return False

    def classify(self, target, facts):
        names = [value for name, value in facts.headers if name == "x-call"]
        if len(names) != 1:
            raise Unclassifiable("no_call", "expected one header X-Call")
        where = f"{target.urn}#call/{names[0]}"
        return (Classified(ActionType.TOOL_CALL, where, {"method": facts.method}, catalog_target=target),)


by_header = ByHeader()
'''
POINTS = """
[lictor.criteria]
acme.even = acme_rules:EvenCriterion
allowlist = acme_rules:EvenCriterion
broken = acme_rules:nowhere
absent = acme_absent:x
unfit = acme_rules:by_header
[lictor.classifiers]
acme.header = acme_rules:by_header
http = acme_rules:by_header
"""


def install(path: Path, code: str = CODE, version: str = "1.2", name: str = "acme-rules") -> Path:
    """Make the distribution in a folder that is to be on `sys.path`; returns the folder."""
    info = path / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (path / "acme_rules.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(POINTS)
    (info / "RECORD").write_text(f"acme_rules.py,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n")
    return path
