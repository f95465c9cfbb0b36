"""How many CPUs this process may use."""

import math
import os
from pathlib import Path


def available(cgroup="/sys/fs/cgroup"):
    """The container's CPU quota, rounded up, or else the CPUs this process may run on.

    os.cpu_count() sees the whole machine whatever the quota (gunicorn issue 2028).
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    allowed = quota(Path(cgroup))
    return min(usable, math.ceil(allowed)) if allowed else usable


def quota(cgroup):
    """CPUs' worth of time a period, as a float; None without a limit or outside a container."""
    try:
        # cgroup v2: "max 100000" or "200000 100000" (Linux, Documentation/admin-guide/cgroup-v2)
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            # cgroup v1: -1 is no limit (Linux, Documentation/scheduler/sched-bwc)
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None
