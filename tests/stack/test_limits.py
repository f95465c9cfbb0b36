"""What one client may ask for, and what happens beyond: 429, 405, a connection that ends."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import h2.config
import h2.connection
import h2.settings
import pytest
from clone import wait_until
from raw import exchange, handshake

HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}


@pytest.fixture(scope="module")
def limited(stack):
    """The stack with limits that a test reaches without load."""
    limits = {"RATE_LIMIT": "20", "RATE_BURST": "30", "CONNECTION_LIMIT": "8"}
    stack.write_settings(**limits)
    try:
        stack.make("up")
        yield stack
    finally:
        for name in limits:
            del stack.settings[name]
        stack.write_settings()
        stack.make("up")


def forget() -> None:
    """Until the requests before no longer count: burst / rate, which only time brings about."""
    time.sleep(30 / 20)


def test_a_burst_above_the_rate_is_refused_and_served_again_later(limited):
    with limited.client() as client:
        forget()
        answers = [client.get("/diagnostics/hello", headers=HTML) for _ in range(150)]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.headers["X-Content-Type-Options"] == "nosniff"
        assert refused.headers["X-Request-ID"] in refused.text
        assert "nginx" not in refused.text.lower()
        forget()
        assert client.get("/diagnostics/hello").status_code == 200


def test_others_are_served_meanwhile(limited):
    """Another client is another address: a container beside nginx."""
    script = """
import http.client, ssl, socket
context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection("localhost", context=context)
connection.sock = context.wrap_socket(socket.create_connection(("nginx", 8443)),
                                      server_hostname="localhost")
connection.request("GET", "/diagnostics/hello")
print(connection.getresponse().status)
"""
    image = limited.inspect("app")[0]["Image"]
    with limited.client() as client:
        statuses = [client.get("/diagnostics/hello").status_code for _ in range(150)]
        assert 429 in statuses
        other = limited.run(
            *("docker", "run", "--rm", "--network", f"{limited.name}_edge", image),
            *("python", "-c", script),
        )
        assert other.stdout == "200\n"


def test_static_files_are_not_counted(limited):
    path = limited.style_sheet()
    with limited.client() as client:
        assert {client.get(path).status_code for _ in range(150)} == {200}


def test_requests_under_way_at_the_same_time_are_limited(limited):
    with limited.client() as client:
        forget()

        def slow(_: int) -> int:
            return client.get("/diagnostics/work?ms=1500").status_code

        with ThreadPoolExecutor(12) as pool:
            statuses = sorted(pool.map(slow, range(12)))
        # Not fewer than the rate's burst lets through at once, not more than may be under way.
        assert statuses == [200] * 8 + [429] * 4


@pytest.mark.parametrize("method", ["FOOBAR", "PROPFIND", "TRACE", "get"])
def test_unknown_methods_stop_at_the_edge(stack, client, method):
    request = f"{method} /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = exchange(handshake(stack), request.encode())
    assert answer.split()[1] in (b"405", b"400"), answer[:100]
    last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    assert stack.lines_of(last, "app")
    assert method not in {
        line["http"]["request"]["method"] for line in stack.log("app") if "http" in line
    }


def test_405_of_the_edge_says_what_is_allowed(client):
    answer = client.request("FOOBAR", "/")
    assert answer.status_code == 405
    assert "PATCH" in answer.headers["Allow"]
    of_the_application = client.delete("/diagnostics/hello")
    assert of_the_application.status_code == 405
    assert "PATCH" not in of_the_application.headers["Allow"]


REFUSED = {
    "not shown": ("GET", "/metrics", 404),
    "unknown method": ("FOOBAR", "/", 405),
    "too large": ("POST", "/diagnostics/echo", 413),
}


@pytest.mark.parametrize(("method", "path", "status"), REFUSED.values(), ids=REFUSED)
def test_errors_of_the_edge_are_html_or_json_by_accept(client, method, path, status):
    content = b"x" * (10 * 1024**2 + 1) if status == 413 else None
    page = client.request(method, path, headers=HTML, content=content)
    assert page.status_code == status
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["X-Request-ID"] in page.text

    answer = client.request(method, path, headers=JSON, content=content)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    problem = json.loads(answer.text)
    assert problem["status"] == status
    assert problem["title"] not in ("", "Error")
    assert problem["request_id"] == answer.headers["X-Request-ID"]


def test_below_api_errors_of_the_edge_are_json_for_who_accepts_anything(client):
    answer = client.request("FOOBAR", "/api/request", headers={"Accept": "*/*"})
    assert answer.headers["Content-Type"] == "application/problem+json"


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


def test_http2_rapid_reset_is_cut_off_and_others_are_served(stack, client):
    """CVE-2023-44487: streams opened and reset at once, faster than anybody could answer."""
    request = [
        *((":method", "GET"), (":path", "/diagnostics/hello?attack")),
        *((":scheme", "https"), (":authority", f"localhost:{stack.https_port}")),
    ]
    connection, attacker = http2(stack)

    with connection:
        for _ in range(100):
            for _ in range(50):
                stream = attacker.get_next_available_stream_id()
                attacker.send_headers(stream, request, end_stream=True)
                attacker.reset_stream(stream)
            with suppress(OSError):
                connection.sendall(attacker.data_to_send())
            assert client.get("/diagnostics/hello").status_code in (200, 429)
        # Up to the end, for which the socket waits ten seconds; by a reset, if not in good order.
        with suppress(ConnectionError):
            while connection.recv(65536):
                pass
    wait_until(lambda: client.get("/diagnostics/hello").status_code == 200, 10, "a good answer")
    last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    assert stack.lines_of(last, "nginx")
    taken = sum(line["url"]["query"] == "attack" for line in stack.log("nginx"))
    assert 0 < taken <= 1000
