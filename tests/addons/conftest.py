"""Fixtures of the addons' tests."""

from __future__ import annotations

import pytest
from flows import FakeControl


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()
