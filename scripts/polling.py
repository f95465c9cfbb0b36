"""Trying again until something holds, or time is up."""

import time
from collections.abc import Iterator


def attempts(seconds: float, pause: float = 0.5) -> Iterator[float]:
    """Yield the seconds passed, until they are more than these; each has a pause after it."""
    begin, passed = time.monotonic(), 0.0
    while passed <= seconds:
        passed = time.monotonic() - begin
        yield passed
        time.sleep(pause)
