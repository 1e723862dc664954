"""What a process that runs the engine has loaded of mitmproxy's own addons, and what still can be."""

from __future__ import annotations

import subprocess
import sys

NEVER_RUN = ("flask", "ldap3", "jinja2", "werkzeug", "mitmproxy.addons.onboarding", "mitmproxy.addons.script")


def said_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_worker_loads_no_addon_that_it_does_not_run() -> None:
    program = f"import sys, lictor.proxy.worker; print([name for name in {NEVER_RUN} if name in sys.modules])"
    assert said_by(program) == "[]"


def test_a_worker_loads_no_http_client_or_server_but_mitmproxy() -> None:
    assert said_by("import sys, lictor.proxy.worker; print('aiohttp' in sys.modules)") == "False"


def test_whoever_asks_gets_all_addons() -> None:
    program = (
        "import lictor.engine.engine; from mitmproxy import addons; from mitmproxy.addons import core; "
        "made = addons.default_addons(); print(len(made) > 20, isinstance(made[0], core.Core))"
    )
    assert said_by(program) == "True True"


def test_a_package_that_is_loaded_already_stays() -> None:
    program = (
        "from mitmproxy import addons; import lictor.engine.engine, sys; "
        "print(sys.modules['mitmproxy.addons'] is addons, addons.default_addons is not None)"
    )
    assert said_by(program) == "True True"


def test_what_the_package_has_not_it_does_not_invent() -> None:
    program = "import lictor.engine.engine; from mitmproxy import addons; print(hasattr(addons, 'nonsense'))"
    assert said_by(program) == "False"
