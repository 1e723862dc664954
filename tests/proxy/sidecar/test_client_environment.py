"""Every variable that leads a client leads it to the monitor."""

from __future__ import annotations

from pathlib import Path

import pytest

from lictor.proxy.sidecar.client_environment import agent_environment

URL = "http://lictor:token@127.0.0.1:1234"


def environment(**inherited: str) -> dict[str, str]:
    return agent_environment(inherited, URL, Path("/run/ca.pem"), Path("/run/none"))


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy"])
def test_the_proxy_variables_in_both_cases(name: str) -> None:
    made = environment(**{name: "http://elsewhere", name.upper(): "socks5://elsewhere"})
    assert made[name] == made[name.upper()] == URL


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY", "npm_config_noproxy"])
def test_no_exceptions_are_left(name: str) -> None:
    assert environment(**{name: "*"})[name] == ""


@pytest.mark.parametrize(
    "name", ["SOCKS_PROXY", "ftp_proxy", "wss_proxy", "Http_Proxy", "NPM_CONFIG_PROXY", "PIP_PROXY"]
)
def test_no_other_proxy_is_left(name: str) -> None:
    assert "elsewhere" not in str(environment(**{name: "http://elsewhere"}))


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])
def test_the_ca_variables_are_replaced(name: str) -> None:
    assert environment(**{name: "/etc/all.pem"})[name] == "/run/ca.pem"


def test_the_systems_roots_are_out_of_sight() -> None:
    assert environment(SSL_CERT_DIR="/etc/ssl/certs")["SSL_CERT_DIR"] == "/run/none"


def test_the_rest_is_left_as_it_is() -> None:
    made = environment(PATH="/bin", HOME="/home/x", MY_SETTING="1")
    assert (made["PATH"], made["HOME"], made["MY_SETTING"]) == ("/bin", "/home/x", "1")
