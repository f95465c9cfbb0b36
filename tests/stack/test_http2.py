"""HTTP/2 clients that misbehave, frame by frame."""

import socket
from contextlib import suppress

import h2.config
import h2.connection
import h2.settings
import pytest
from clone import wait_until
from streams import Streams


def http2(stack) -> tuple[socket.socket, h2.connection.H2Connection]:
    """A connection over which frames are sent one by one."""
    context = stack.tls()
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("localhost", stack.https_port), timeout=10)
    connection = context.wrap_socket(plain, server_hostname="localhost")
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    connection.sendall(client.data_to_send())
    return connection, client


def test_http2_streams_are_limited(stack):
    connection, client = http2(stack)
    with connection:

        def settings() -> int | None:
            client.receive_data(connection.recv(65536))
            return client.remote_settings.get(h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS)

        assert wait_until(settings, 5, "the server's settings") == 64


def test_http2_sizes_are_those_that_gunicorn_takes(stack):
    """They are counted compressed, in which most of these take five bits each."""
    with stack.client(http2=True) as client:
        large = client.get("/diagnostics/echo", headers={"X-Large": "a" * 12_000})
        assert large.status_code == 200
        long = client.get(f"/{'0' * 12_000}", headers={"Accept": "text/html"})
    assert long.status_code == 414
    assert long.headers["X-Request-ID"] in long.text


def test_http2_rapid_reset_is_cut_off_and_others_are_served(stack, client):
    """CVE-2023-44487: streams opened and reset at once, faster than anybody could answer."""
    request = [
        *((":method", "GET"), (":path", "/diagnostics/hello?attack")),
        *((":scheme", "https"), (":authority", f"localhost:{stack.https_port}")),
    ]
    connection, attacker = http2(stack)
    slowest = 0

    with connection:
        for _ in range(100):
            for _ in range(50):
                stream = attacker.get_next_available_stream_id()
                attacker.send_headers(stream, request, end_stream=True)
                attacker.reset_stream(stream)
            with suppress(OSError):
                connection.sendall(attacker.data_to_send())
            good = client.get("/diagnostics/hello")
            assert good.status_code == 200
            slowest = max(slowest, good.elapsed.total_seconds())
        # Up to the end, for which the socket waits ten seconds; by a reset, if not in good order.
        with suppress(ConnectionError):
            while connection.recv(65536):
                pass
    assert slowest < 1
    last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    assert stack.lines_of(last, "nginx")
    taken = sum(line["url"]["query"] == "attack" for line in stack.log("nginx"))
    assert 0 < taken <= 1000


def test_http2_continuation_flood_is_cut_off_and_others_are_served(stack, client):
    """Header fields without end, in frames of which none is the last (CERT VU#421644)."""
    connection, _ = http2(stack)
    # A literal field that is not indexed (RFC 7541, 6.2.2), time and again.
    block = (b"\x00\x01x\x7f\x00" + b"a" * 127) * 100

    def frame(kind: int) -> bytes:
        """RFC 9113, 4.1: length, type, no flags, stream 1."""
        return len(block).to_bytes(3) + bytes([kind, 0]) + (1).to_bytes(4) + block

    received = b""
    with connection:
        with suppress(OSError):
            connection.sendall(frame(0x1))  # HEADERS
            for _ in range(100):
                connection.sendall(frame(0x9))  # CONTINUATION
                assert client.get("/diagnostics/hello").status_code == 200
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    # RFC 9113, 6.8 and 7: GOAWAY with ENHANCE_YOUR_CALM is the last that came.
    assert received[-17:-13] == b"\x00\x00\x08\x07"
    assert received[-4:] == b"\x00\x00\x00\x0b"


@pytest.mark.parametrize("path", ["/", "/diagnostics/echo", "/static/x", "/metrics/x"])
def test_a_body_that_is_too_large_is_refused_once(stack, path):
    """nginx looks at the length again on the way to the error page."""
    with Streams(
        stack, path, 1, method="POST", body=1, **{"content-length": "99000000"}
    ) as streams:
        wait_until(lambda: streams.take() and streams.statuses, 10, "a response")
    assert {*streams.statuses} <= {404, 413}
    assert 413 in streams.statuses or path != "/"
