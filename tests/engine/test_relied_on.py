"""Another mitmproxy is taken only where it does not differ."""

from __future__ import annotations

import h2
import h2.connection
import pytest
from mitmproxy import version

from lictor.engine import relied_on
from lictor.formats.errors import UsageError


def test_this_one_fits() -> None:
    assert relied_on.changed() == []
    relied_on.check()


def test_another_version_that_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "VERSION", "12.9.9")
    relied_on.check()


def test_another_hyper_h2_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2, "__version__", "4.9.9")
    relied_on.check()
    monkeypatch.setattr(relied_on, "RELIED_ON", ((h2.connection.H2Connection.receive_data, "another hash"),))
    with pytest.raises(UsageError, match=r"h2 4\.9\.9 changes h2\.connection.*install mitmproxy .* with h2 4\.3\.0"):
        relied_on.check()


def test_another_version_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "VERSION", "12.9.9")
    function, _ = relied_on.RELIED_ON[0]
    monkeypatch.setattr(relied_on, "RELIED_ON", ((function, "another hash"),))
    with pytest.raises(UsageError, match=r"12\.9\.9 changes .*state_wait_for_request_headers.*install mitmproxy"):
        relied_on.check()
