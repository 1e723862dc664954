"""How commands give orders to a running monitor: through its socket on this machine, or from afar (`--monitor URL`)."""

from __future__ import annotations

import functools
import http.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from ..certs.contexts import client_context
from ..certs.domain import TrustDomain
from ..certs.servers import ExpectedServer
from ..formats import strict_json
from ..formats.errors import FormatError, LictorError, UsageError
from ..proxy.config import load
from ..proxy.orders.operator import ask
from ..verifier.urls import https_address

ANSWER_S = 30.0
MAX_ANSWER = 16 * 1024 * 1024
_FILE = click.Path(path_type=Path)

config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Path("lictor.toml"),
    show_default=True,
    help="The configuration of the monitor that is meant.",
)
why_option = click.option("--why", metavar="TEXT", default="", help="Is written into the log.")


@dataclass(frozen=True, slots=True)
class Orders:
    """Where orders go. Without `url` to the monitor of `config`, on this machine."""

    config: Path
    url: str | None
    identity: str
    cert: Path | None
    key: Path | None
    trust: Path

    def give(self, order: str, **arguments: Any) -> Any:
        """Give an order; its result.

        Raises UsageError if no monitor is there or it makes no sense, LictorError if it failed or is not allowed.
        """
        if self.url is None:
            return ask(load(self.config).ledger.path, order, **arguments)
        return self._afar(self.url, "POST", order, arguments)

    def ask(self, question: str) -> Any:
        """What the monitor says of this. Raises as `give`."""
        if self.url is None:
            return ask(load(self.config).ledger.path, question)
        return self._afar(self.url, "GET", question, {})

    def agent_id(self, name: str) -> str:
        """The SPIFFE ID of an agent given by name or by ID."""
        if "://" in name:
            return name
        domain = TrustDomain.open(self.trust).name if self.url is not None else load(self.config).monitor.trust_domain
        return f"spiffe://{domain}/agent/{name}"

    def _afar(self, url: str, method: str, order: str, arguments: dict[str, Any]) -> Any:
        host, port = https_address(url, "--monitor: expected")
        if (self.cert is None) != (self.key is None):
            raise UsageError("--cert and --key go together; one of them is missing")
        domain = TrustDomain.open(self.trust)
        files = domain.agent(self.identity) if self.cert is None else None
        cert, key = (files.cert, files.key) if files is not None else (self.cert, self.key)
        assert cert is not None
        assert key is not None
        expected = ExpectedServer(f"spiffe://{domain.name}/monitor/*", domain.name, domain.identity_ca, domain.crl)
        context = client_context(domain.identity_ca, cert, key)
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=ANSWER_S)
        try:
            connection.connect()
            expected.check(connection.sock.getpeercert(True))
            body = orjson.dumps(arguments) if method == "POST" else None
            connection.request(method, f"/orders/{order}", body)
            answer = connection.getresponse()
            status, data = answer.status, answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as e:
            raise LictorError(f"the monitor at {url} does not answer: {e}") from None
        finally:
            connection.close()
        return _result(status, data)


def _result(status: int, data: bytes) -> Any:
    try:
        said = strict_json.loads_object(data[:MAX_ANSWER])
    except FormatError:
        text = data[:300].decode("utf-8", "replace").strip()
        raise LictorError(f"the monitor answers {status}: {text}") from None
    if said.get("ok") is True:
        return said.get("result")
    raise UsageError(str(said.get("error"))[:1000])


def ordering[F: Callable[..., Any]](command: F) -> Callable[..., Any]:
    """A command that takes `orders`: an `Orders` made of its options."""

    @config_option
    @click.option("--monitor", "url", metavar="https://HOST:PORT", help="Order from afar: where it takes orders.")
    @click.option("--as", "identity", default="default", metavar="NAME", help="From afar: the agent who orders.")
    @click.option("--cert", type=_FILE, metavar="PEM", help="From afar: order with this certificate instead.")
    @click.option("--key", type=_FILE, metavar="PEM", help="The key of --cert.")
    @click.option("--trust", type=_FILE, default=Path("trust"), help="From afar: the trust domain's directory.")
    @functools.wraps(command)
    def with_orders(
        *args: Any,
        config: Path,
        url: str | None,
        identity: str,
        cert: Path | None,
        key: Path | None,
        trust: Path,
        **more: Any,
    ) -> Any:
        return command(*args, orders=Orders(config, url, identity, cert, key, trust), **more)

    return with_orders
