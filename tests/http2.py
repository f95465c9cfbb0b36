"""HTTP/2 for httpx, with GOAWAY as browsers have it (RFC 9113, 6.8); httpx's own drops the stream
that the server still answers.
"""

import socket
import ssl

import httpx
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error

# h2 takes nothing after a GOAWAY, but streams up to its last one are still answered.
H2ConnectionStateMachine._transitions[ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY] = (
    None,
    ConnectionState.CLIENT_OPEN,
)

# As Chromium (kMaxRetryAttempts in net/http/http_network_transaction.cc).
REPEATS = 2


class NotProcessedError(Exception):
    """GOAWAY without an error, its last stream before this one: any method may be sent again."""


class Connection:
    """One stream after the other."""

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext, timeout: float):
        plain = socket.create_connection((url.host, url.port), timeout)
        self.socket = tls.wrap_socket(plain, server_hostname=url.host)
        self.timeout, self.stream, self.ended = timeout, 0, False
        self.last: int | None = None  # of the GOAWAY
        self.http = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()

    def is_open(self) -> bool:
        """Has neither the connection ended nor a GOAWAY come while nothing was under way?"""
        self.socket.settimeout(0)
        try:
            while not self.ended:
                self.receive()
        except ssl.SSLWantReadError:
            pass
        finally:
            self.socket.settimeout(self.timeout)
        return not self.ended and self.last is None

    def receive(self) -> list:
        data = self.socket.recv(65536)
        self.ended = not data
        events = self.http.receive_data(data)
        for event in events:
            if isinstance(event, ConnectionTerminated):
                if event.error_code:
                    raise httpx.RemoteProtocolError(f"GOAWAY with error {event.error_code}")
                self.last = event.last_stream_id
            elif isinstance(event, DataReceived):
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        return events

    def send(self, request: httpx.Request) -> httpx.Response:
        self.stream = self.http.get_next_available_stream_id()
        names = {"host", "connection", "transfer-encoding"}
        self.http.send_headers(
            self.stream,
            [
                (":method", request.method),
                (":path", request.url.raw_path.decode()),
                (":scheme", "https"),
                (":authority", request.url.netloc.decode()),
                *((name, text) for name, text in request.headers.items() if name not in names),
            ],
            end_stream=not request.content,
        )
        if request.content:
            self.http.send_data(self.stream, request.content, end_stream=True)
        self.socket.sendall(self.http.data_to_send())
        headers, body = [], b""
        while not self.ended:
            events = self.receive()
            for event in events:
                if getattr(event, "stream_id", None) != self.stream:
                    continue
                if isinstance(event, ResponseReceived):
                    headers = event.headers
                elif isinstance(event, DataReceived):
                    body += event.data
                elif isinstance(event, StreamReset):
                    raise httpx.RemoteProtocolError(f"stream reset, error {event.error_code}")
                elif isinstance(event, StreamEnded):
                    return httpx.Response(
                        int(dict(headers)[":status"]),
                        headers=[pair for pair in headers if not pair[0].startswith(":")],
                        content=body,
                    )
            if self.last is not None and self.stream > self.last:
                raise NotProcessedError
            self.socket.sendall(self.http.data_to_send())
        raise httpx.RemoteProtocolError(f"end without an answer, the GOAWAY's stream: {self.last}")


class Transport(httpx.BaseTransport):
    """For an httpx.Client of one thread, on one connection at a time.

    A response's extensions say on which streams the request was sent in vain before (`repeated`).
    """

    def __init__(self, tls: ssl.SSLContext, timeout: float):
        self.tls, self.timeout = tls, timeout
        self.tls.set_alpn_protocols(["h2"])
        self.connection: Connection | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        repeated: list[int] = []
        while True:
            connection = self.connected(request.url)
            try:
                response = connection.send(request)
            except NotProcessedError:
                repeated.append(connection.stream)
                self.close()
                if len(repeated) > REPEATS:
                    raise httpx.RemoteProtocolError("GOAWAY, as before") from None
            except TimeoutError as error:
                self.close()
                raise httpx.ReadTimeout(repr(error)) from error
            except (OSError, H2Error, httpx.HTTPError) as error:
                self.close()
                raise httpx.ReadError(repr(error)) from error
            else:
                if request.headers.get("Connection") == "close":
                    self.close()
                response.extensions |= {"http_version": b"HTTP/2", "repeated": repeated}
                return response

    def connected(self, url: httpx.URL) -> Connection:
        try:
            if self.connection and not self.connection.is_open():
                self.close()
        except (OSError, H2Error, httpx.HTTPError):
            self.close()
        if not self.connection:
            try:
                self.connection = Connection(url, self.tls, self.timeout)
            except OSError as error:
                raise httpx.ConnectError(repr(error)) from error
        return self.connection

    def close(self) -> None:
        if self.connection:
            self.connection.socket.close()
            self.connection = None
