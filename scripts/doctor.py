"""Check this machine for what the stack needs: one line a problem, with its fix.

`make doctor` runs every check, with WITH="…" for those add-ons; `make up` runs them before
it builds anything. Exits with 1 when a problem would keep the stack from running.
"""

import sys

from scripts import addons
from scripts.checks import Problem
from scripts.checks.machine import disk, engine, kernel, memory, plugins, ports, programs
from scripts.checks.settings import (
    build_secrets,
    certificates,
    configuration,
    dotenv,
    folder_or_volume,
    images,
    line_ends,
    registry,
    remembered_addons,
    settings,
    unread_settings,
    way_out,
)

# Each group needs the one before it to be without problems.
BEFORE_ENGINE = [[line_ends, dotenv], [remembered_addons]]
BEFORE_BUILD = [*BEFORE_ENGINE, [engine, plugins], [configuration], [folder_or_volume, way_out]]
BEFORE_START = [*BEFORE_BUILD, [settings]]
GROUPS = [
    *BEFORE_START,
    [images],
    [ports, certificates, build_secrets, disk, memory, programs, kernel, registry],
]


def problems(groups: list[list] = GROUPS, verbose: bool = False) -> list[Problem]:
    """Run the groups of checks, up to the first group with a problem."""
    for group in groups:
        found = []
        for check in group:
            its = list(check())
            found += its
            if verbose and not its:
                print(f"ok     {check.__name__.replace('_', ' ')}")
        if found:
            return found
    return []


def require(groups: list[list]) -> None:
    """End with a line for each problem, before anything is done that it would spoil."""
    found = problems(groups)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found:
        sys.exit(1)


def main() -> None:
    addons.choose()
    found = problems(verbose=True)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    for problem in [] if found else unread_settings():
        print(f"warning: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)
