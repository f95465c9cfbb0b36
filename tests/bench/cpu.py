"""CPU seconds used so far: by containers, by the engine around them, by the whole machine."""

import os
import re
from pathlib import Path

from clone import Clone, engine

# Docker's processes that move what containers print (the kernel keeps 15 characters of a name).
ENGINE = {"dockerd", "containerd", "containerd-shim"}


def of_containers(stack: Clone) -> dict[str, float]:
    """By service; those of several replicas add up."""
    used = {}
    for container in engine().containers(
        filters={"label": f"com.docker.compose.project={stack.name}"}
    ):
        stats = engine().stats(container["Id"], stream=False, one_shot=True)
        service = container["Labels"]["com.docker.compose.service"]
        seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        used[service] = used.get(service, 0) + seconds
    return used


def of_engine() -> float:
    """0 where the engine is not on this machine."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # ended meanwhile
            continue
        name, numbers = re.fullmatch(r"\d+ \((.*)\) (.*)\n", text, re.DOTALL).groups()
        if name in ENGINE:
            # proc_pid_stat(5): fields 14 and 15, utime and stime
            ticks += sum(map(int, numbers.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def of_machine() -> float:
    """All but idle and waiting for the disk."""
    values = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, values)
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


class Meter:
    """A `with` block; after it, `seconds`: what each container, the engine and the machine used."""

    def __init__(self, stack: Clone):
        self.stack = stack

    def now(self) -> dict[str, float]:
        return of_containers(self.stack) | {"engine": of_engine(), "machine": of_machine()}

    def __enter__(self) -> None:
        self.seconds = self.now()

    def __exit__(self, *error: object) -> None:
        self.seconds = {name: end - self.seconds.get(name, 0) for name, end in self.now().items()}
