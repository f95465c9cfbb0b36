"""The load generator: wrk, in a container."""

import re
from pathlib import Path

from clone import Clone

IMAGE = Path(__file__).resolve().parent / "wrk_image"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def load(
    image: str,
    candidate: Clone,
    url: str,
    connections: int,
    seconds: int,
    host: str = "",
    network: str = "host",
    failures_allowed: bool = False,
) -> tuple[float, float]:
    """Requests a second and the 99th percentile of the answers' seconds.

    Raises AssertionError for answers that are not 2xx, unless a Host of its own is given.
    """
    answer = candidate.run(
        *("docker", "run", "--rm", "--network", network, image, "--threads", "2", "--latency"),
        *("--connections", str(connections), "--duration", f"{seconds}s"),
        *(("--header", f"Host: {host}") if host else ()),
        url,
    ).stdout
    failed = ("Non-2xx" in answer and not host) or "Socket errors" in answer
    if failed and not failures_allowed:
        raise AssertionError(answer)
    number, unit = re.search(r"99% +([\d.]+)(us|ms|s|m)", answer).groups()
    return float(re.search(r"Requests/sec: +([\d.]+)", answer)[1]), float(number) * UNITS[unit]
