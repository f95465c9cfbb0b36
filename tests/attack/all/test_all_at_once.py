"""One client at every limit at once, for a minute in all: others are served as before.

The attacking programs have processes of their own, which wait for all others: on an attacker's own
machine, they would not take this one's CPU time.
"""

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from os import nice

import httpx
from clone import Clone
from raw import connect
from streams import Streams, used
from visitor import Visitor, for_seconds, p99

# Seconds. Every other phase is quiet; the first of each are not counted, in which the attacks
# send and get their 200 MB.
PHASE, SETTLED, PHASES = 20, 8, 6
VISITS = (("GET", "/", 0), ("POST", "/diagnostics/echo", 5_000_000))


def flood(stack: Clone) -> None:
    """Log lines: 500 requests a second that nginx refuses by itself."""
    tls = stack.tls()
    request = b"GET /metrics/flood HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in for_seconds(PHASE):
        with connect(stack, tls) as connection:
            for _ in range(5):
                connection.sendall(50 * request)
                connection.recv(65536)
                time.sleep(0.1)


def miss(stack: Clone) -> None:
    """Pages that nginx keeps and nobody else requests."""
    with httpx.Client(base_url=stack.url, verify=stack.tls(), timeout=30) as client:
        for _ in for_seconds(PHASE):
            path = f"/diagnostics/page?bytes=290000&cache=public,max-age=60&miss={time.time_ns()}"
            client.get(path)
            time.sleep(0.05)


def idle(stack: Clone) -> None:
    """Connections that have sent nothing but the beginning of a handshake, or nothing after it."""
    tls = stack.tls()
    with ExitStack() as held:
        for _ in range(300):
            held.enter_context(connect(stack, tls))
        time.sleep(PHASE / 2)


def upload(stack: Clone) -> int:
    """As many as one client may have, which do not end; MB in /tmp."""
    path, length = "/diagnostics/echo", {"content-length": "9900000"}
    end = time.monotonic() + PHASE - 1
    with Streams(stack, path, 10, method="POST", body=9_899_000, **length) as streams:
        streams.send(PHASE - 2)
        held = used(stack)
        while time.monotonic() < end:
            time.sleep(2)
            for stream in streams.left:
                streams.http.send_data(stream, b"x")
            streams.flush()
    return held


def download(stack: Clone) -> None:
    """Nearly as many as one client may have, which it does not read."""
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(Streams(stack, "/diagnostics/page?bytes=2000000", 40))
        time.sleep(PHASE)


ATTACKS = (flood, miss, idle, upload, download)


def test_others_are_served_while_one_client_is_at_every_limit(attacked):
    phases, most = [], 0
    with (
        Visitor(attacked, *VISITS, pause=0.02) as visitor,
        ProcessPoolExecutor(len(ATTACKS), get_context("spawn"), nice, (19,)) as pool,
    ):
        for number in range(PHASES):
            begin = time.time()
            attacks = [pool.submit(attack, attacked) for attack in ATTACKS if number % 2]
            time.sleep(PHASE)
            phases.append((begin + SETTLED, begin + PHASE - 1))
            for attack in attacks:
                most = max(most, attack.result() or 0)
    assert most > 150, "MB of /tmp that the attacks held"
    assert Counter(visit.status for visit in visitor.visits).keys() == {200}
    for _, path, _ in VISITS:
        quiet, loud = (
            [
                visit.seconds
                for begin, end in phases[number::2]
                for visit in visitor.visits
                if visit.path == path and begin <= visit.begin <= end
            ]
            for number in (0, 1)
        )
        sys.stdout.write(f"{path}: {p99(quiet):.3f} s of {len(quiet)}, ")
        sys.stdout.write(f"attacked {p99(loud):.3f} s of {len(loud)}\n")
        assert p99(loud) < 1.5 * p99(quiet) + 0.01  # seconds
