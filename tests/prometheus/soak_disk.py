"""Prometheus on a disk that is full."""

from contextlib import contextmanager

import yaml
from clone import wait_until
from load import Load
from test_monitoring import ECHO, answers


def test_the_application_does_not_notice_that_prometheus_has_no_disk_left(addon):
    """On a disk of 64 MB, in memory; the volume comes back afterwards with all that it held."""
    kept = 'count_over_time(up{job="app"}[10m])'
    before = addon.value(kept)
    with small_disk(addon):
        wait_until(lambda: answers(addon), 30, "Prometheus")
        with addon.stack.filled("prometheus", "/prometheus"):
            # Blind, it says nothing, and so the dead man's switch tells.
            wait_until(lambda: addon.active() == set(), 60, "no watchdog any more")
            with Load(addon.stack) as load:
                load.carry_on(200)
        assert load.failed == [], load.summary
        wait_until(lambda: (addon.value(f"sum({ECHO})") or 0) >= 200, 30, "scrapes again")
    wait_until(lambda: (addon.value(kept) or 0) >= before, 30, "what was there before")


@contextmanager
def small_disk(addon):
    """Prometheus with a small file system in place of its volume."""
    file = addon.stack.folder / "docker-compose.override.yml"
    kept = file.read_text()
    disk = {"type": "tmpfs", "device": "tmpfs", "o": "size=64m,uid=65534"}
    changed = yaml.safe_load(kept)
    changed["services"]["prometheus"] = {"volumes": ["small:/prometheus"]}
    changed["volumes"] = {"small": {"driver_opts": disk}}
    file.write_text(yaml.safe_dump(changed))
    try:
        restart_with_empty_disk(addon)
        size = addon.stack.execute("prometheus", "stat", "-f", "-c", "%b", "/prometheus")
        assert int(size) * 4096 == 64 * 1024**2, "what follows would fill this machine's disk"
        yield
    finally:
        file.write_text(kept)
        restart_with_empty_disk(addon)
        addon.stack.run("docker", "volume", "rm", f"{addon.stack.name}_small")


def restart_with_empty_disk(addon) -> None:
    """Compose gives a container the mounts of the one that it replaces."""
    addon.stack.compose("rm", "--stop", "--force", "prometheus")
    addon.stack.make("up")
