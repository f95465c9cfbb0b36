"""Load on a running stack, half of it POST, and what became of each request."""

import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass

import httpx
from clone import Clone, wait_until
from http2 import Transport

# One client's limits that the load does not reach; the limiter stays on.
LIMITS = {
    "RATE_LIMIT": "100000",
    "RATE_BURST": "10000",
    "CONNECTION_LIMIT": "600",
    "UPLOAD_LIMIT": "25",
    # What these need.
    "NGINX_TMP": "1000m",
    "NGINX_CACHE": "256m",
    "NGINX_MEMORY": "2500m",
}


@dataclass(frozen=True)
class Result:
    """One request; times in seconds of time.monotonic()."""

    number: int
    method: str
    begin: float
    end: float
    status: int  # 0: no answer
    replica: str
    version: str
    error: str
    protocol: str
    repeated: list[int]  # HTTP/2: streams that a GOAWAY left out; see http2.py


class Load:
    """Clients that ask one request after the other, in a `with` block; a fifth of them on fresh
    connections, the others on kept-alive ones. Every other client speaks HTTP/2, as browsers do.

    Every other request is a POST, which neither nginx nor the client repeats (but see http2.py);
    no answer is kept in a cache. Each goes to /diagnostics/echo?load=NUMBER, a number of its own.
    `pause`: seconds that a client waits between two.
    """

    def __init__(self, stack: Clone, clients: int = 4, timeout: float = 40, pause: float = 0):
        self.stack, self.timeout, self.pause = stack, timeout, pause
        self.results: list[Result] = []
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(
                target=self.ask, args=[("HTTP/2", "HTTP/1.1")[number % 2]], daemon=True
            )
            for number in range(clients)
        ]

    numbers = itertools.count()

    def __enter__(self) -> "Load":
        # ALPN is a setting of the context.
        self.tls, self.tls2 = self.stack.tls(), self.stack.tls()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def ask(self, protocol: str) -> None:
        options = {"base_url": self.stack.url, "verify": self.tls, "timeout": self.timeout}
        if protocol == "HTTP/2":
            options["transport"] = Transport(self.tls2, self.timeout)
        with httpx.Client(**options) as client:
            while not self.stop.wait(self.pause):
                number = next(self.numbers)
                method, begin = ("GET", "POST")[number % 2], time.monotonic()
                status, headers, error, repeated = 0, {}, "", []
                try:
                    answer = client.request(
                        method,
                        f"/diagnostics/echo?load={number}",
                        # A GET and a POST of ten end their connection.
                        headers={"Connection": "close"} if number % 10 < 2 else {},
                        content=b"load" if method == "POST" else None,
                    )
                    status, headers = answer.status_code, answer.headers
                    repeated = answer.extensions.get("repeated", [])
                except httpx.HTTPError as exception:
                    error = repr(exception)
                self.results.append(
                    Result(
                        number,
                        method,
                        begin,
                        time.monotonic(),
                        status,
                        headers.get("X-Replica", ""),
                        headers.get("X-Version", ""),
                        error,
                        protocol,
                        repeated,
                    )
                )

    def carry_on(self, number: int) -> None:
        """Until there are so many results, and a second of requests that began after this call."""
        begin = time.monotonic()
        wait_until(
            lambda: len(self.results) >= number and self.good_since(begin + 1),
            max(60, number / 50),
            f"{number} requests",
        )

    @property
    def summary(self) -> str:
        """Sent, failed and by what, the longest time without a good answer, and the versions."""
        good = sorted(result.end for result in self.results if result.status == 200)
        gap = max((after - before for before, after in itertools.pairwise(good)), default=0)
        failed = Counter((r.protocol, r.method, r.status, r.error) for r in self.failed)
        protocols = dict(Counter(result.protocol for result in self.results))
        repeated = Counter("new" if 1 in r.repeated else "kept" for r in self.results if r.repeated)
        versions = dict(Counter(result.version for result in self.results))
        return (
            f"{len(self.results)} requests {protocols}, {len(self.failed)} failed {dict(failed)}, "
            f"repeated after a GOAWAY, by the connection: {dict(repeated)}, "
            f"longest gap {gap:.2f} s, versions {versions}"
        )

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.status != 200]

    def good_since(self, moment: float) -> bool:
        """Has a request that began after `moment` been answered with 200?"""
        return any(result.status == 200 and result.begin > moment for result in self.results[-50:])
