"""Clients that are slow but make progress are served; those that make none are let go.

All rows run side by side, since each mostly waits.
"""

import math
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import h2.config
import h2.connection
import h2.events
import h2.settings
import load
import pytest
from clone import Clone, wait_until
from raw import connect

MIB = 1024**2
# More than the largest window.
SIZE = 14 * MIB
# The slowest that is served, in bytes a second, and two more.
SLOWEST = 50_000
RATES = (SLOWEST, 100_000, 250_000)
# An HTTP/2 stream's window as browsers have it; they give it back by halves.
WINDOWS = {"Chrome": 6 * MIB, "Firefox": 12 * MIB}
# How long clients are slow: past the largest step. Then they take the rest at once.
SLOW_FOR = WINDOWS["Firefox"] / 2 / SLOWEST + 5
# nginx's send_timeout, and what the buffers on the way and a busy machine take.
LET_GO = (150, 195)
# Does not fit into those.
HUGE = 64 * MIB

PATHS = {
    "file": "/static/large.bin",
    "application": f"/diagnostics/stream?parts={SIZE // 65536}&bytes=65536",
}
HUGE_PATHS = {
    "file": "/static/huge.bin?stop=",
    "application": f"/diagnostics/stream?parts={HUGE // 65536}&bytes=65536&stop=",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Clone]:
    clone = Clone(tmp_path_factory.mktemp("clone") / "slow", APP_ENV="testing", **load.LIMITS)
    (clone.folder / "app/webapp/static/large.bin").write_bytes(bytes(SIZE))
    (clone.folder / "app/webapp/static/huge.bin").write_bytes(bytes(HUGE))
    try:
        clone.make("up")
        # Once, since all clients come at the same moment.
        clone.pem = clone.certificate
        yield clone
    finally:
        clone.remove()


def tls(site: Clone, protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=site.pem)
    context.set_alpn_protocols([protocol])
    return context


class Pace:
    """Lets so many bytes a second through, until the client has been slow for long enough."""

    def __init__(self, rate: int):
        self.rate, self.begin, self.passed = rate, time.monotonic(), 0

    def wait(self, number: int) -> None:
        self.passed += number
        while (now := time.monotonic() - self.begin) < SLOW_FOR and self.passed > now * self.rate:
            time.sleep(0.1)


def read_http1(site: Clone, path: str, rate: int) -> int:
    """Bytes of the body that arrived."""
    pace = Pace(rate)
    with connect(site, tls(site, "http/1.1")) as connection:
        connection.settimeout(60)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        total = len(received.partition(b"\r\n\r\n")[2])
        # In small parts, as a program that writes to a slow disk.
        while part := connection.recv(max(rate // 10, 4096)):
            total += len(part)
            pace.wait(len(part))
    return total


class Http2:
    """One stream, read at a pace; its window is given back by halves, the connection's at once."""

    def __init__(self, site: Clone, window: int):
        self.socket = connect(site, tls(site, "h2"))
        self.socket.settimeout(60)
        self.window = window
        self.client = h2.connection.H2Connection(h2.config.H2Configuration())
        code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
        self.client.local_settings = h2.settings.Settings(
            client=True, initial_values={code: window}
        )
        self.client.initiate_connection()
        self.client.increment_flow_control_window(2**30)
        self.socket.sendall(self.client.data_to_send())

    def request(self, site: Clone, method: str, path: str, end: bool = True) -> None:
        fields = {":method": method, ":path": path, ":scheme": "https"}
        fields[":authority"] = f"localhost:{site.https_port}"
        self.client.send_headers(1, list(fields.items()), end_stream=end)
        self.socket.sendall(self.client.data_to_send())

    def events(self) -> Iterator[h2.events.Event]:
        while part := self.socket.recv(65536):
            yield from self.client.receive_data(part)
            self.socket.sendall(self.client.data_to_send())


def read_http2(site: Clone, path: str, rate: int, window: int) -> int:
    http2, pace, total, owed = Http2(site, window), Pace(rate), 0, 0
    with http2.socket:
        http2.request(site, "GET", path)
        for event in http2.events():
            if isinstance(event, h2.events.DataReceived):
                total += len(event.data)
                # Taken off the network at once, as a browser does; what is slow is who reads it.
                pace.wait(len(event.data))
                owed += event.flow_controlled_length
                if owed >= window // 2:
                    http2.client.increment_flow_control_window(owed, 1)
                    http2.socket.sendall(http2.client.data_to_send())
                    owed = 0
            elif isinstance(event, h2.events.StreamEnded):
                return total
            elif isinstance(event, h2.events.StreamReset):
                return -total
    return -total


def upload_http1(site: Clone) -> int:
    pace, size = Pace(SLOWEST), 8 * MIB
    with connect(site, tls(site, "http/1.1")) as connection:
        connection.settimeout(60)
        head = "POST /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 16384):
            connection.sendall(bytes(16384))
            pace.wait(16384)
        return int(connection.recv(4096).split()[1])


def upload_http2(site: Clone) -> int:
    pace, left, http2 = Pace(SLOWEST), 8 * MIB, Http2(site, MIB)
    with http2.socket:
        http2.request(site, "POST", "/diagnostics/echo", end=False)
        events = http2.events()
        while left:
            size = min(16384, left, http2.client.local_flow_control_window(1))
            if not size:
                next(events)
                continue
            left -= size
            http2.client.send_data(1, bytes(size), end_stream=not left)
            http2.socket.sendall(http2.client.data_to_send())
            pace.wait(size)
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                return int(dict(event.headers)[b":status"])
    return 0


def seconds_in_log(site: Clone, mark: str) -> float:
    """Of a request, by nginx's line about it, which it writes at the request's end."""

    def lines() -> list[dict]:
        return [line for line in site.log("nginx") if mark in line.get("url", {}).get("query", "")]

    (line,) = wait_until(lines, LET_GO[1] + 10, f"nginx's line about {mark}")
    return line["event"]["duration"] / 1e9


def stop_http1(site: Clone, path: str, mark: str) -> float:
    with connect(site, tls(site, "http/1.1")) as connection:
        connection.sendall(f"GET {path}{mark} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return seconds_in_log(site, mark)


def stop_http2(site: Clone, path: str, mark: str) -> float:
    http2 = Http2(site, WINDOWS["Chrome"])
    with http2.socket:
        http2.request(site, "GET", path + mark)
        return seconds_in_log(site, mark)


def rows() -> dict[str, tuple[Callable, ...]]:
    found: dict[str, tuple[Callable, ...]] = {}
    for (name, path), rate in product(PATHS.items(), RATES):
        found[f"HTTP/1.1, {name}, {rate // 1000} kB/s"] = (read_http1, path, rate)
        for browser, window in WINDOWS.items():
            row = f"HTTP/2, {browser}, {name}, {rate // 1000} kB/s"
            found[row] = (read_http2, path, rate, window)
    return found


ROWS = rows()
UPLOADS = {"HTTP/1.1": upload_http1, "HTTP/2": upload_http2}
STOPPED = {
    f"{protocol}, {name}": (stop, path, f"{protocol}-{name}")
    for (protocol, stop), (name, path) in product(
        {"HTTP/1.1": stop_http1, "HTTP/2": stop_http2}.items(), HUGE_PATHS.items()
    )
}


@pytest.fixture(scope="module")
def results(site) -> Iterator[dict[str, object]]:
    with ThreadPoolExecutor(len(ROWS) + len(UPLOADS) + len(STOPPED)) as pool:
        futures = {name: pool.submit(row[0], site, *row[1:]) for name, row in ROWS.items()}
        futures |= {f"upload {name}": pool.submit(f, site) for name, f in UPLOADS.items()}
        futures |= {f"stop {name}": pool.submit(f, site, *r) for name, (f, *r) in STOPPED.items()}
    return {name: future.exception() or future.result() for name, future in futures.items()}


@pytest.mark.parametrize("name", ROWS)
def test_a_slow_reader_gets_all(results, name):
    assert results[name] == SIZE


@pytest.mark.parametrize("name", UPLOADS)
def test_a_slow_upload_is_accepted(results, name):
    assert results[f"upload {name}"] == 200


@pytest.mark.parametrize("name", STOPPED)
def test_a_reader_who_stops_is_let_go(results, name):
    assert LET_GO[0] - 1 <= results[f"stop {name}"] <= LET_GO[1]


def test_the_timeout_follows_from_the_slowest_reader(site):
    configuration = site.execute("nginx", "nginx", "-T")
    timeout = configuration.partition("\nsend_timeout ")[2].partition("s;")[0]
    assert int(timeout) == LET_GO[0] >= math.ceil(max(WINDOWS.values()) / 2 / SLOWEST)
