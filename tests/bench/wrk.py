"""The load generator: wrk, in a container."""

import re
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from clone import Clone

IMAGE = Path(__file__).resolve().parent / "wrk_image"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
# Its container starts before the load and ends after it.
SCRIPT = 'echo ready; read -r _; wrk "$@"; times; echo done; read -r _'


class Result(NamedTuple):
    rate: float  # requests a second
    p99: float  # seconds
    requests: int
    cpu: float  # seconds that wrk itself used


def load(
    image: str,
    candidate: Clone,
    url: str,
    connections: int,
    seconds: int,
    host: str = "",
    network: str = "host",
    failures_allowed: bool = False,
    around: AbstractContextManager | None = None,
) -> Result:
    """Load the URL from that many kept-alive connections, and that within `around`.

    Raises AssertionError for responses that are not 2xx, unless a Host of its own is given.
    """
    options = ("--threads", "2", "--latency", "--connections", str(connections))
    command = (
        *("docker", "run", "--rm", "--interactive", "--network", network),
        *("--entrypoint=sh", image, "-c", SCRIPT, "wrk", *options, "--duration", f"{seconds}s"),
        *(("--header", f"Host: {host}") if host else ()),
        url,
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with around or nullcontext():
            process.stdin.write("\n")
            process.stdin.flush()
            answer = ""
            while (line := process.stdout.readline()) not in ("", "done\n"):
                answer += line
        process.communicate("\n")
    failed = ("Non-2xx" in answer and not host) or "Socket errors" in answer
    if (failed and not failures_allowed) or "Requests/sec" not in answer:
        raise AssertionError(answer)
    number, unit = re.search(r"99% +([\d.]+)(us|ms|s|m)", answer).groups()
    # The last line of `times`: of the shell's children, user and system.
    used = re.findall(r"(\d+)m([\d.]+)s", answer.rstrip().splitlines()[-1])
    return Result(
        float(re.search(r"Requests/sec: +([\d.]+)", answer)[1]),
        float(number) * UNITS[unit],
        int(re.search(r"(\d+) requests in", answer)[1]),
        sum(int(minutes) * 60 + float(rest) for minutes, rest in used),
    )
