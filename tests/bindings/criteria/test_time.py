"""Hours, weekdays and dates by the clocks of a zone, over the nights in which these are changed too."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criteria.time import CompiledTime
from lictor.bindings.model import Action, ActionType
from lictor.bindings.schema import load_binding
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError

WORK = {"timezone": "Europe/Berlin", "hours": ["08:00-18:00"], "weekdays": ["mon", "tue", "wed", "thu", "fri"]}
NIGHT = {"timezone": "Europe/Berlin", "hours": ["22:00-06:00"], "weekdays": ["fri"]}
EARLY = {"timezone": "Europe/Berlin", "hours": ["02:00-03:00"]}
YORK = {"timezone": "America/New_York", "hours": ["01:30-02:30"]}
YEAR = {"timezone": "Pacific/Auckland", "from": "2026-01-01", "until": "2026-12-31", "except": ["2026-02-06"]}
KOLKATA = {"timezone": "Asia/Kolkata", "hours": ["00:00-05:30", "23:00-24:00"]}


def ready(criteria: dict[str, Any]) -> CompiledTime:
    compiled = compile_criteria({"type": "time", **criteria})
    assert isinstance(compiled, CompiledTime)
    return compiled


@pytest.mark.parametrize(
    ("criteria", "utc", "holds"),
    [
        (WORK, "2026-01-05T07:00:00", True),  # Monday 08:00, winter
        (WORK, "2026-01-05T06:59:59", False),
        (WORK, "2026-01-05T16:59:59", True),
        (WORK, "2026-01-05T17:00:00", False),
        (WORK, "2026-07-06T06:00:00", True),  # Monday 08:00, summer
        (WORK, "2026-07-06T05:59:59", False),
        (WORK, "2026-07-06T16:00:00", False),
        (WORK, "2026-01-10T12:00:00", False),  # Saturday
        (WORK, "2026-03-30T06:00:00", True),  # Monday after the change
        (WORK, "2026-10-26T06:59:59", False),
        (NIGHT, "2026-01-09T21:00:00", True),  # Friday 22:00
        (NIGHT, "2026-01-10T04:59:59", True),  # Saturday 05:59:59, began on Friday
        (NIGHT, "2026-01-10T05:00:00", False),
        (NIGHT, "2026-01-10T21:00:00", False),  # Saturday 22:00
        (NIGHT, "2026-01-09T04:00:00", False),  # Friday 05:00, began on Thursday
        (EARLY, "2026-03-29T00:59:59", False),  # 01:59:59; then clocks go from 02:00 to 03:00
        (EARLY, "2026-03-29T01:00:00", False),
        (EARLY, "2026-10-25T00:00:00", True),  # 02:00, summer
        (EARLY, "2026-10-25T00:59:59", True),
        (EARLY, "2026-10-25T01:00:00", True),  # 02:00 again, winter
        (EARLY, "2026-10-25T01:59:59", True),
        (EARLY, "2026-10-25T02:00:00", False),
        (YORK, "2026-03-08T06:59:59", True),  # 01:59:59; then 03:00
        (YORK, "2026-03-08T07:00:00", False),
        (YORK, "2026-11-01T05:30:00", True),  # 01:30, summer
        (YORK, "2026-11-01T06:00:00", False),  # 01:00, winter
        (YORK, "2026-11-01T06:30:00", True),  # 01:30, winter
        (YORK, "2026-11-01T07:30:00", False),
        (YEAR, "2025-12-31T10:59:59", False),  # New Year comes early there
        (YEAR, "2025-12-31T11:00:00", True),
        (YEAR, "2026-12-31T10:59:59", True),
        (YEAR, "2026-12-31T11:00:00", False),
        (YEAR, "2026-02-05T11:00:00", False),
        (YEAR, "2026-02-06T10:59:59", False),
        (YEAR, "2026-02-06T11:00:00", True),
        (KOLKATA, "2026-01-04T23:59:59", True),  # 05:29:59
        (KOLKATA, "2026-01-05T00:00:00", False),
        (KOLKATA, "2026-01-05T17:29:59", False),
        (KOLKATA, "2026-01-05T17:30:00", True),  # 23:00
        (KOLKATA, "2026-01-05T18:29:59", True),
    ],
)
def test_table(criteria: dict[str, Any], utc: str, holds: bool) -> None:
    assert ready(criteria).holds(datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp()) is holds


def test_it_judges_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    action = Action("spiffe://e.example/a", ActionType.TOOL_CALL, "urn:e1:a")
    for utc, expected in (("2026-01-05T07:00:00", ""), ("2026-01-10T12:00:00", "outside_of_time")):
        now = datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp()
        monkeypatch.setattr(time, "time", lambda now=now: now)
        outcome = ready(WORK).judge(action)
        assert (outcome.ok, outcome.reason) == (not expected, expected)


@pytest.mark.parametrize(
    ("criteria", "complaint"),
    [
        ({"timezone": "Europe/Entenhausen", "weekdays": ["mon"]}, "is not a time zone"),
        ({"timezone": "../../etc/passwd", "weekdays": ["mon"]}, "is not a time zone"),
        ({"timezone": "/etc/localtime", "weekdays": ["mon"]}, "is not a time zone"),
        ({"timezone": "UTC"}, "minProperties"),
        ({"timezone": "UTC", "hours": ["8-18"]}, "expected hours as HH:MM-HH:MM"),
        ({"timezone": "UTC", "hours": ["08:00-25:00"]}, "'25:00' is later than 24:00"),
        ({"timezone": "UTC", "hours": ["08:00-24:01"]}, "'24:01' is later than 24:00"),
        ({"timezone": "UTC", "hours": ["08:00-08:00"]}, "are none"),
        ({"timezone": "UTC", "hours": ["24:00-08:00"]}, "are none"),
        ({"timezone": "UTC", "weekdays": ["monday"]}, "expected one of 'mon'"),
        ({"timezone": "UTC", "from": "2026-02-30"}, "is not a day of the calendar"),
        ({"timezone": "UTC", "from": "2026-2-3"}, "expected a day as YYYY-MM-DD"),
        ({"timezone": "UTC", "from": "2026-02-03", "until": "2026-02-02"}, "end .* before they begin"),
    ],
)
def test_wrong_criteria_are_refused(criteria: dict[str, Any], complaint: str) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "time", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=complaint):
        load_binding(canonical(document), "x")
