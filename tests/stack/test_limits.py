"""What one client may ask for, and what happens beyond."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import headers
import pytest
from clone import wait_until
from raw import connect
from scrape import Growth


@pytest.fixture(scope="module")
def limited(stack):
    """The stack with limits that a test reaches without load."""
    with stack.changed(RATE_LIMIT="20", RATE_BURST="30", CONNECTION_LIMIT="8", UPLOAD_LIMIT="3"):
        yield stack


def forget() -> None:
    """Until the requests before no longer count: burst / rate, which only time brings about."""
    time.sleep(30 / 20)


def test_a_burst_above_the_rate_is_refused_and_served_again_later(limited):
    with limited.client() as client:
        forget()
        answers = [
            client.get("/diagnostics/hello", headers={"Accept": "text/html"}) for _ in range(150)
        ]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["Retry-After"]) > 0
        headers.check(refused)
        assert refused.headers["X-Request-ID"] in refused.text
        assert "nginx" not in refused.text.lower()
        forget()
        assert client.get("/diagnostics/hello").status_code == 200


def test_what_was_refused_is_counted(limited):
    with limited.client() as client:
        forget()
        growth = Growth(limited)
        statuses = [client.get("/diagnostics/hello").status_code for _ in range(100)]
    assert statuses.count(429) > 10
    growth.becomes(statuses.count(429), "rejected_total", limit="requests")
    growth.becomes(statuses.count(429), "requests_total", status="429")


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


HEAD = b"POST /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n"
UPLOADS = {
    "of a stated length": b"Content-Length: 200000",
    "chunked": b"Transfer-Encoding: chunked",
}


@pytest.mark.parametrize("length", UPLOADS.values(), ids=UPLOADS)
def test_uploads_under_way_at_the_same_time_are_limited(limited, length):
    """However slow: here nothing of them comes at all."""
    tls = limited.tls()
    with limited.client() as client, ExitStack() as uploads:
        forget()
        for _ in range(3):
            upload = uploads.enter_context(connect(limited, tls))
            upload.sendall(HEAD % length)

        def large() -> int:
            return client.post("/diagnostics/echo", content=b"x" * 100_000).status_code

        wait_until(lambda: large() == 429, 3, "all three to be under way")
        # What takes no space is served.
        assert client.post("/diagnostics/echo", content=b"x" * 99_999).status_code == 200
        assert client.get("/diagnostics/hello").status_code == 200
        uploads.close()
        wait_until(lambda: large() == 200, 3, "space again")


def test_uploads_of_unknown_length_in_http2_are_limited(limited):
    def upload(_: int) -> int:
        def parts():
            yield b"x"
            everybody.wait(10)
            yield b"y"

        with limited.client(http2=True) as client:
            return client.post("/diagnostics/echo", content=parts()).status_code

    everybody = threading.Barrier(5)
    forget()
    with ThreadPoolExecutor(5) as pool:
        statuses = sorted(pool.map(upload, range(5)))
    assert statuses == [200] * 3 + [429] * 2
