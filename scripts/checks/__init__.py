"""What `make doctor` checks: each check yields its problems, and their fixes."""

from typing import NamedTuple


class Problem(NamedTuple):
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what} -> {self.fix}"
