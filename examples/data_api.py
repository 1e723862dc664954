"""An HTTPS data API that serves only clients with a certificate. It counts connections and requests in a file.

    data_api.py --cert server.pem --key server.key --client-ca ca.pem --calls calls.json [--name sales] [--port 8444]

Prints one line, {"listening": URL}, when it can be called; port 0 picks a free one. Answers every GET with JSON that
also says which certificate the client showed.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RECORDS = {"currency": "EUR", "orders": [{"id": 1, "amount": 120.0}, {"id": 2, "amount": 80.5}]}


class DataServer(ThreadingHTTPServer):
    """Counts what arrives: TCP connections before TLS, and requests after it."""

    daemon_threads = True

    def __init__(self, port: int, name: str, context: ssl.SSLContext, calls: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.name = name
        self._context = context
        self._calls = calls
        self._counts = {"connections": 0, "requests": 0}
        self._lock = threading.Lock()
        self._write()

    def count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1
            self._write()

    def _write(self) -> None:
        new = self._calls.with_suffix(".new")
        new.write_text(json.dumps(self._counts))
        new.replace(self._calls)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Run in the thread of this connection, so that a slow handshake holds up nobody else."""
        self.count("connections")
        try:
            with self._context.wrap_socket(request, server_side=True) as tls:
                super().finish_request(tls, client_address)
        except (ssl.SSLError, ConnectionError):
            return

    def shutdown_request(self, request: Any) -> None:
        if isinstance(request, socket.socket):
            request.close()


class Handler(BaseHTTPRequestHandler):
    """GET returns the records."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        assert isinstance(self.server, DataServer)
        self.server.count("requests")
        answer = {"source": self.server.name, "path": self.path, "client": self._client_name(), **RECORDS}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _client_name(self) -> str:
        """The URI name in the client's certificate, else its subject."""
        assert isinstance(self.connection, ssl.SSLSocket)
        certificate: dict[str, Any] = self.connection.getpeercert() or {}
        uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
        return str(uris[0]) if uris else str(certificate.get("subject"))

    def log_message(self, format: str, *args: Any) -> None:
        """The counts are the log."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A data API that demands a client certificate.")
    parser.add_argument("--cert", required=True, help="certificate chain of this server, PEM")
    parser.add_argument("--key", required=True, help="its private key, PEM")
    parser.add_argument("--client-ca", required=True, help="CA that signs the clients' certificates, PEM")
    parser.add_argument("--calls", required=True, type=Path, help="file for the counts, JSON")
    parser.add_argument("--name", default="data")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    context.load_verify_locations(arguments.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server = DataServer(arguments.port, arguments.name, context, arguments.calls)
    print(json.dumps({"listening": f"https://localhost:{server.server_port}/"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
