"""How much of its memory limit the container uses."""

from pathlib import Path

# By version of cgroups: what is used, the limit, and the part of the page cache that the kernel can
# take back at once, so that a container that has read many files does not seem full.
# Linux, Documentation/admin-guide/cgroup-v2 and cgroup-v1/memory
FILES = (
    ("memory.current", "memory.max", "memory.stat", "inactive_file"),
    (
        "memory/memory.usage_in_bytes",
        "memory/memory.limit_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
# Version 1 says "no limit" with the greatest number of pages there is.
NO_LIMIT = 2**60


def usage(cgroup="/sys/fs/cgroup"):
    """(used, limit) in bytes; the limit is None where there is none, both outside a container."""
    for used, limit, statistics, cache in FILES:
        try:
            read = [Path(cgroup, name).read_text() for name in (used, limit, statistics)]
        except OSError:
            continue
        given_back = next(
            int(line.split()[1]) for line in read[2].splitlines() if line.startswith(f"{cache} ")
        )
        most = int(read[1]) if read[1].strip() != "max" else NO_LIMIT
        return int(read[0]) - given_back, most if most < NO_LIMIT else None
    return None, None
