#!/usr/bin/env python3
"""Measure the edge over TLS, in one run, alternating: `make bench WHAT=edge`.

- a page from the cache beside what nginx answers by itself, with the same log and headers
- the same page with nginx's metrics and without
- the latency of fast clients alone, beside 200 slow ones of all kinds, and beside 200 readers
  that stop

ROUNDS (5) and SECONDS (8) as in compare.py. Printed: medians, and their ratios; an error when
cached pages or fast clients fall behind what is wanted of them.
"""

import statistics
import sys
import tempfile
import threading
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import wrk
from clone import wait_until
from compare import ROUNDS, SECONDS, Ours
from raw import connect

SLOW = 200
LEAST_CACHED, MOST_BESIDE_SLOW = 0.4, 1.5
PAGE = "/diagnostics/page?bytes=4000&cache=public,max-age=1,stale-while-revalidate=60"


@contextmanager
def slow_clients(ours: Ours, readers: bool = False):
    """A quarter each: silent, half a header, half a body, and a large answer that nobody reads;
    `readers`: the last alone.
    """
    stop, tls, slow = threading.Event(), ours.tls(), set()
    post = b"POST /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\n"
    kinds = [
        b"",
        post + b"X-A: ",
        post + b"Content-Length: 1000000\r\n\r\nhalf",
        b"GET /diagnostics/page?bytes=2000000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]

    def be_slow(number: int) -> None:
        while not stop.is_set():
            kind = 3 if readers else number % len(kinds)
            with suppress(OSError), connect(ours, tls) as connection:
                connection.sendall(kinds[kind])
                if kind == 3:
                    # Its answer has been made, which is work of another kind.
                    connection.settimeout(60)
                    connection.recv(1)
                slow.add(number)
                # The two in the middle trickle on; all come back when nginx has let them go.
                while not stop.wait(1):
                    connection.sendall(b"x" if kind in (1, 2) else b"")
                    connection.settimeout(0.01)
                    with suppress(TimeoutError):
                        if kind != 3 and not connection.recv(1):
                            break
                    connection.settimeout(5)

    threads = [threading.Thread(target=be_slow, args=(number,)) for number in range(SLOW)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(slow) == SLOW, 60, "all to be slow")
        stop.wait(3)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def table(title: str, unit: str, values: dict[str, list[float]]) -> float:
    """Print it; the last one's ratio to the first."""
    first = statistics.median(next(iter(values.values())))
    print(f"\n| {title} | {unit}, median | range | ratio |\n|---|---|---|---|")
    for name, found in values.items():
        median = statistics.median(found)
        spread = f"{min(found):,.1f} – {max(found):,.1f}"
        print(f"| {name} | {median:,.1f} | {spread} | {median / first:.2f} |")
    return median / first


def main() -> None:
    folder = tempfile.TemporaryDirectory()
    ours = Ours(Path(folder.name) / "ours", NGINX_METRICS="on")
    without = Ours(Path(folder.name) / "without")
    try:
        for candidate in (ours, without):
            candidate.write_settings(SERVER_NAME="localhost nginx")
            candidate.make("up")
        with ours.image(wrk.IMAGE) as image:
            measure(ours, image)
            measure_metrics({"without metrics": without, "with metrics": ours}, image)
    finally:
        ours.remove()
        without.remove()
        folder.cleanup()


def load_edge(image: str, stack: Ours, path: str, host: str = "") -> float:
    """Requests a second; not through the published port, which costs more than nginx does."""
    network = f"{stack.name}_edge"
    return wrk.load(image, stack, f"https://nginx:8443{path}", 32, SECONDS, host, network)[0]


def measure_metrics(candidates: dict[str, Ours], image: str) -> None:
    rates = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, stack in candidates.items():
            rates[name].append(load_edge(image, stack, PAGE))
    table("a page from the cache, 4 kB", "requests/s", rates)


def measure(ours: Ours, image: str) -> None:
    # A name that is not ours is refused by `return`: the least that nginx can answer.
    targets = {
        "nginx by itself: 421, 43 bytes": ("/", "example.org"),
        "nginx by itself: a file": (ours.style_sheet(), ""),
        "a page from the cache, 4 kB": (PAGE, ""),
    }
    rates = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, (path, host) in targets.items():
            rates[name].append(load_edge(image, ours, path, host))
    cached = table("over TLS, 32 connections", "requests/s", rates)

    beside = {
        "alone": nullcontext,
        f"beside {SLOW} slow clients": lambda: slow_clients(ours),
        f"beside {SLOW} readers that stop": lambda: slow_clients(ours, readers=True),
    }
    latencies = {name: [] for name in beside}
    for _ in range(ROUNDS):
        for name, context in beside.items():
            with context():
                seconds = wrk.load(image, ours, ours.target, 2, SECONDS)[1]
            latencies[name].append(seconds * 1000)
    table("the application, 2 fast connections", "p99 in ms", latencies)
    medians = [statistics.median(found) for found in latencies.values()]
    if cached < LEAST_CACHED or max(medians[1:]) > MOST_BESIDE_SLOW * medians[0]:
        sys.exit(f"cached pages below {LEAST_CACHED}, or fast clients above {MOST_BESIDE_SLOW}")


if __name__ == "__main__":
    main()
