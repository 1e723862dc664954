"""Orders that the Verifier gives a monitor, and asks it for (`proxy/orders/listener`), over mutual TLS."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from ...certs.contexts import client_context
from ...certs.listener import Listener
from ...certs.servers import ExpectedServer
from ...formats import strict_json
from ...formats.errors import FormatError, LictorError, UsageError

ANSWER_S = 10.0
MAX_ANSWER = 4 << 20
MAX_SAID = 200

FAILURES = (LictorError, aiohttp.ClientError, OSError)  # a TimeoutError is an OSError
"""All that giving an order raises."""


class Ordered:
    """One monitor, and where it takes orders."""

    def __init__(self, name: str, url: str, listener: Listener) -> None:
        """`listener`: by whose certificate it is asked. Raises UsageError and VerificationError for files."""
        self.name = name
        self._url = url
        self._context = client_context(listener.ca, listener.cert, listener.key)
        ExpectedServer(name, listener.trust_domain, listener.ca, listener.crl, listener.partners).watch(self._context)

    async def give(self, order: str, arguments: dict[str, Any]) -> Any:
        """The result of an order. Raises what is in FAILURES, UsageError for one that it refuses."""
        return await self._ask("POST", order, orjson.dumps(arguments))

    async def ask(self, question: str) -> Any:
        """What it says of this. Raises like `give`."""
        return await self._ask("GET", question, None)

    async def _ask(self, method: str, order: str, body: bytes | None) -> Any:
        timeout, url = aiohttp.ClientTimeout(total=ANSWER_S), f"{self._url}/orders/{order}"
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.request(method, url, data=body, ssl=self._context, allow_redirects=False) as answer,
        ):
            data = bytearray()
            async for chunk in answer.content.iter_chunked(65536):
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise FormatError(f"its answer has more than {MAX_ANSWER} octets")
        if answer.status not in (200, 400):
            said = bytes(data[:MAX_SAID]).decode("utf-8", "replace").strip()
            raise UsageError(f"it answers {answer.status} ({said})")
        found = strict_json.loads_object(bytes(data))
        if found.get("ok") is not True:
            raise UsageError(str(found.get("error"))[:MAX_SAID])
        return found.get("result")
