"""A copy of each log line in two files in memory, for a log forwarder that empties them.

All workers and replicas on a machine append to the same two: whole lines, in one write(2) with
O_APPEND. Imported only where SHIP_LOGS is on.
"""

import functools
import logging
import os

from prometheus_client import Counter

lost = Counter(
    "app_log_lines_not_copied_total",
    "Log lines for which the folder of the log forwarder was full; they are on stdout.",
)


class LogFiles:
    """What the forwarder drops first, when the folder fills up, is in info.log."""

    def __init__(self, folder):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self.error, self.info = (
            os.open(f"{folder}/{name}.log", flags, 0o600) for name in ("error", "info")
        )

    def append(self, level, line):
        """line: bytes, its end included."""
        try:
            # One that is cut short is counted by the forwarder.
            os.write(self.error if level >= logging.WARNING else self.info, line)
        except OSError:
            lost.inc()


# One pair of open files a process, however many applications it makes.
opened = functools.cache(LogFiles)
