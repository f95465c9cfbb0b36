"""Requests byte by byte, for what an HTTP client would not send."""

import socket
import ssl
import time
from collections.abc import Iterable
from http.client import HTTPResponse

from clone import Clone


def handshake(stack: Clone, name: str | None = "localhost", **changes) -> ssl.SSLSocket:
    """An open TLS connection to the stack; raises what the handshake raises."""
    context = stack.tls()
    context.check_hostname = False
    for attribute, value in changes.items():
        setattr(context, attribute, value)
    return connect(stack, context, name)


def connect(stack: Clone, tls: ssl.SSLContext, name: str | None = "localhost") -> ssl.SSLSocket:
    """The same with a client's settings that are there already, for many connections."""
    plain = socket.create_connection(("127.0.0.1", stack.https_port), timeout=5)
    return tls.wrap_socket(plain, server_hostname=name)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request as it is and read until the server closes."""
    with connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def get(stack: Clone, path: str) -> int:
    """The status of a GET for exactly this path."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return int(exchange(handshake(stack), request.encode()).split()[1])


def statuses_after_gaps(stack: Clone, gaps: Iterable[float], number: int = 300) -> set[int]:
    """What POSTs get, `number` of them side by side, time and again with gaps of so many seconds.

    So many at once use all connections that nginx keeps to the application, the oldest included.
    """
    tls, statuses = stack.tls(), set()
    for gap in (0, *gaps):
        time.sleep(gap)
        connections = [connect(stack, tls) for _ in range(number)]
        for connection in connections:
            connection.sendall(
                b"POST /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Length: 4\r\n\r\nbody"
            )
        for connection in connections:
            with connection:
                answer = HTTPResponse(connection)
                answer.begin()
                statuses.add(answer.status)
    return statuses
