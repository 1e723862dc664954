"""The environment variables that lead an ordinary client through a proxy and let it believe intercepted TLS.

What each client needs, and which were tried, is in docs/clients.md. Variables lead; they do not lock in: a program that
ignores them goes direct, unless the network forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_CA_FILES = (
    "SSL_CERT_FILE",  # OpenSSL, Python's ssl, httpx, aiohttp, urllib3, Go
    "CURL_CA_BUNDLE",  # curl
    "REQUESTS_CA_BUNDLE",  # requests
    "PIP_CERT",  # pip
    "GIT_SSL_CAINFO",  # git
    "NODE_EXTRA_CA_CERTS",  # Node, undici, npm: added to the roots that Node has built in
    "npm_config_cafile",  # npm
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",  # gRPC
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
)


def agent_environment(inherited: Mapping[str, str], proxy_url: str, ca_file: Path, no_certs: Path) -> dict[str, str]:
    """`inherited` with every proxy variable turned to `proxy_url` and every CA variable to `ca_file`.

    `no_certs` is an empty directory: with it as SSL_CERT_DIR, the system's roots are out of sight too, so that a client
    which goes round the monitor meets a certificate that it does not trust.
    """
    made = {name: value for name, value in inherited.items() if not _names_a_proxy(name)}
    for name in _PROXIES:
        made[name] = made[name.upper()] = proxy_url
    made["no_proxy"] = made["NO_PROXY"] = ""
    made["PIP_PROXY"] = made["npm_config_proxy"] = made["npm_config_https_proxy"] = proxy_url
    made["npm_config_noproxy"] = ""
    made["GIT_HTTP_PROXY_AUTHMETHOD"] = "basic"
    made["NODE_USE_ENV_PROXY"] = "1"
    made.update(dict.fromkeys(_CA_FILES, str(ca_file)))
    made["SSL_CERT_DIR"] = str(no_certs)
    return made


def _names_a_proxy(name: str) -> bool:
    """Also SOCKS_PROXY, FTP_PROXY, npm_config_proxy and the like: each of them leads some client elsewhere."""
    lower = name.lower()
    return lower.endswith("_proxy") or lower == "npm_config_noproxy"
