#!/usr/bin/env python3
"""Measure the edge over TLS, in one run, alternating: `make bench WHAT=edge`.

- a page from the cache beside what nginx answers by itself, with the same log and headers
- the same page with nginx's metrics and without
- the latency of fast clients alone, beside 200 slow ones of all kinds, and beside 200 readers
  that stop; the first two also of the tutorials' set-up

ROUNDS (5) and SECONDS (8) as in compare.py. Printed: medians, and their ratios; an error when
cached pages or fast clients fall behind what is wanted of them.
"""

import statistics
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from ssl import SSLContext

import wrk
from clone import Clone, wait_until
from compare import ROUNDS, SECONDS, Article, Ours, serves
from raw import connect

SLOW = 200
# Of a file that nginx serves by itself; of the latency alone.
LEAST_CACHED, MOST_BESIDE_SLOW = 0.7, 1.5
PAGE = "/diagnostics/page?bytes=4000&cache=public,max-age=1,stale-while-revalidate=60"


@contextmanager
def slow_clients(stack: Clone, tls: SSLContext, readers: bool = False):
    """A quarter each: silent, half a header, half a body, and a large answer that nobody reads;
    `readers`: the last alone.
    """
    stop, slow = threading.Event(), set()
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
            with suppress(OSError), connect(stack, tls) as connection:
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


def table(title: str, unit: str, values: dict[str, list[float]]) -> list[float]:
    """Print it; each median's ratio to the first."""
    medians = [statistics.median(found) for found in values.values()]
    ratios = [median / medians[0] for median in medians]
    print(f"\n| {title} | {unit}, median | range | ratio |\n|---|---|---|---|")
    for (name, found), median, ratio in zip(values.items(), medians, ratios, strict=True):
        spread = f"{min(found):,.1f} – {max(found):,.1f}"
        print(f"| {name} | {median:,.1f} | {spread} | {ratio:.2f} |")
    return ratios


def main() -> None:
    folder = tempfile.TemporaryDirectory()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        counting = Ours(folder / "counting", NGINX_METRICS="on")
        ours = Ours(folder / "ours")
        for candidate in (counting, ours):
            stack.callback(candidate.remove)
            candidate.start()
        tutorial = Article(folder / "tutorial", ours)
        stack.callback(tutorial.remove)
        tutorial.start()
        wait_until(lambda: serves(tutorial), 30, "the tutorials' set-up")
        image = stack.enter_context(ours.image(wrk.IMAGE))
        cached = measure_cached(ours, counting, image)
        beside = measure_beside(ours, tutorial, image)
    if cached < LEAST_CACHED or beside > MOST_BESIDE_SLOW:
        sys.exit(f"cached pages below {LEAST_CACHED}, or fast clients above {MOST_BESIDE_SLOW}")


def measure_cached(ours: Ours, counting: Ours, image: str) -> float:
    """The ratio of pages from the cache to what nginx answers by itself."""
    # A name that is not ours is refused by `return`: the least that nginx can answer.
    targets = {
        "nginx's own response: 421": (ours, "/", "example.org"),
        "a file from nginx": (ours, ours.style_sheet(), ""),
        "a page from the cache, 4 kB": (ours, PAGE, ""),
        "… with nginx's metrics": (counting, PAGE, ""),
    }
    rates = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, (stack, path, host) in targets.items():
            url = f"https://nginx:8443{path}"
            result = wrk.load(image, stack, url, 32, SECONDS, host, stack.network)
            rates[name].append(result.rate)
    ratios = table("over TLS, 32 connections", "requests/s", rates)
    return ratios[2] / ratios[1]


def measure_beside(ours: Ours, tutorial: Article, image: str) -> float:
    """The worst ratio of this stack's p99 beside slow clients to its p99 without."""
    tls = ours.tls()
    beside = {
        "alone": (ours, nullcontext),
        f"beside {SLOW} slow clients": (ours, lambda: slow_clients(ours, tls)),
        f"beside {SLOW} readers that stop": (ours, lambda: slow_clients(ours, tls, readers=True)),
        "the tutorials' set-up, alone": (tutorial, nullcontext),
        f"… beside {SLOW} slow clients": (tutorial, lambda: slow_clients(tutorial, tls)),
    }
    latencies = {name: [] for name in beside}
    for _ in range(ROUNDS):
        for name, (stack, context) in beside.items():
            with context():
                url = f"https://nginx:8443{stack.path}"
                result = wrk.load(image, stack, url, 2, SECONDS, network=stack.network)
            latencies[name].append(result.p99 * 1000)
    return max(table("2 fast connections", "p99 in ms", latencies)[1:3])


if __name__ == "__main__":
    main()
