"""How every script here speaks: progress on stdout, one line for what is wrong."""

import sys
from typing import NoReturn


def say(text: str) -> None:
    print(text, flush=True)


def die(what: str, mend: str) -> NoReturn:
    """End with one line that says what is wrong and what to type."""
    sys.exit(f"error: {what} -> {mend}")
