"""How every script here speaks: progress on stdout, one line for what is wrong."""

import json
import signal
import sys
from typing import NoReturn


class NoResponseError(Exception):
    """The engine did not answer: perhaps the managers are just choosing another leader."""


def say(text: str) -> None:
    print(text, flush=True)


def show_log(text: str) -> None:
    """The last lines of a container's log that tell of errors; without any, the last lines."""
    lines, errors = text.strip().splitlines(), []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            # Not through a logger: a traceback, nginx's own error log.
            errors.append(line)
            continue
        if record.get("log", {}).get("level") in ("error", "critical"):
            error = record.get("error", {})
            words = (record["message"], error.get("type"), error.get("message"))
            errors.append(": ".join(filter(None, words)))
    for line in (errors or lines)[-10:]:
        print(f"  | {line}", file=sys.stderr)


def fail(problem: str, fix: str) -> NoReturn:
    """End with one line: what is wrong, and what to type."""
    sys.exit(f"error: {problem} -> {fix}")


def handle_signals() -> None:
    """A job that is cancelled is an interrupt, too, and so is a connection that is lost."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
