"""A probe of a broker's port for the protocol it speaks, used when a client could not connect and got no reason.

A broker ends a connection without an answer where TLS meets a port without it, where a client sends a request before it
logs in, and in the opposite cases. So the port is asked over a connection of its own: does it do TLS, and which login
mechanisms has it? Nothing secret is sent, and no certificate is verified.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_TIMEOUT_S = 3.0
_MOST_BYTES = 65_536
_HANDSHAKE, _VERSION, _NO_LOGIN, _NO_MECHANISM = 17, 1, 34, 33  # SaslHandshake, its version, its error codes


@dataclass(frozen=True, slots=True)
class Listener:
    """The protocol of a port: whether it does TLS, and its login mechanisms; () for no login, None if unknown."""

    tls: bool
    mechanisms: tuple[str, ...] | None

    @property
    def protocol(self) -> str:
        """The value of `kafka.security.protocol` that matches."""
        return ("SASL_" if self.mechanisms else "") + ("SSL" if self.tls else "PLAINTEXT")


def mismatch(servers: str, security: Mapping[str, object]) -> str | None:
    """Return how the settings differ from what the port speaks, and the remedy; None if they agree or it is not known.

    The first of `servers` that answers is asked.
    """
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        listener = _query(host.strip("[]"), int(port))
        if listener is not None:
            return _compared(server.strip(), listener, security)
    return None


def _compared(server: str, listener: Listener, security: Mapping[str, object]) -> str | None:
    protocol = str(security.get("security_protocol", "PLAINTEXT"))
    mechanism = security.get("sasl_mechanism")
    remedy = f"set kafka.security.protocol to {listener.protocol}, or kafka.bootstrap_servers to another listener"
    if protocol.endswith("SSL") and not listener.tls:
        return f"kafka.security.protocol is {protocol}, but the port {server} does not use TLS: {remedy}"
    if not protocol.endswith("SSL") and listener.tls:
        return f"kafka.security.protocol is {protocol}, but the port {server} uses only TLS: {remedy}"
    if listener.mechanisms is None:
        return None
    offered = ", ".join(listener.mechanisms)
    if not protocol.startswith("SASL") and listener.mechanisms:
        return (
            f"kafka.security.protocol is {protocol}, but the port {server} requires a login ({offered}): set it to "
            f"{listener.protocol}, with kafka.security.sasl_mechanism and a user"
        )
    if protocol.startswith("SASL") and not listener.mechanisms:
        return f"kafka.security.protocol is {protocol}, but the port {server} accepts no login: {remedy}"
    if mechanism is not None and listener.mechanisms and mechanism not in listener.mechanisms:
        return (
            f"kafka.security.sasl_mechanism is {mechanism}, but the port {server} offers {offered}: set it to one "
            "of these, or enable it at the broker (sasl.enabled.mechanisms)"
        )
    return None


def _query(host: str, port: int) -> Listener | None:
    """Return what the port speaks; None if no broker answers there."""
    try:
        with socket.create_connection((host, port), _TIMEOUT_S) as plain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            try:
                with context.wrap_socket(plain) as encrypted:
                    return Listener(True, _mechanisms(encrypted))
            except (ssl.SSLError, ConnectionError):
                pass  # no TLS there, or an unsuitable one; the next request shows which
        with socket.create_connection((host, port), _TIMEOUT_S) as plain:
            mechanisms = _mechanisms(plain)
            return None if mechanisms is None else Listener(False, mechanisms)
    except (OSError, ValueError):
        return None


def _mechanisms(connection: socket.socket) -> tuple[str, ...] | None:
    """Return the mechanisms in the answer to a SaslHandshake that names none of them."""
    name = b"?"
    request = struct.pack(">hhihh", _HANDSHAKE, _VERSION, 1, -1, len(name)) + name
    try:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            size, _, code = struct.unpack(">iih", answer.read(10))
            if code not in (_NO_LOGIN, _NO_MECHANISM) or not 10 <= size <= _MOST_BYTES:
                return None
            (count,) = struct.unpack(">i", answer.read(4))
            return tuple(answer.read(*struct.unpack(">h", answer.read(2))).decode("ascii") for _ in range(count))
    except (OSError, struct.error, UnicodeDecodeError):
        return None
