"""A hundred thousand lines and a receiver that is killed again and again; and ten minutes without
one, under load: figures are printed, `pytest -s tests/logstash/soak_shipping.py`.
"""

import time

import pytest
from load import Load
from scrape import total
from shipped import FORWARDERS, moment

EVENTS, KILLS = 100_000, 20
MINUTES = 10


@pytest.mark.timeout(1800)
def test_all_of_a_hundred_thousand_lines_are_accounted_for(shipped):
    since = moment()
    before, dropped_before = shipped.on_stdout(), shipped.dropped()
    with Load(shipped.stack) as load:
        shipped.be_killed(KILLS, pause=12)
        # A line of nginx and one of the application each.
        load.carry_on(EVENTS // 2)
    assert load.failed == [], load.summary
    shipped.settled(lambda: shipped.dropped() - dropped_before, 300)
    written, missing = shipped.on_stdout() - before, shipped.missing()
    dropped = shipped.dropped() - dropped_before
    resent = shipped.total("log_forwarder_lines_resent_total")
    print(f"\n{len(written)} lines, {KILLS} kills: {len(missing)} missing, {dropped:.0f} counted as"
          f" dropped, {resent:.0f} sent again; {load.summary}")  # fmt: skip
    assert len(written) >= EVENTS
    print(shipped.replay(since))
    assert shipped.missing() == set()
    shipped.check_once_each()


@pytest.mark.timeout(60 * MINUTES + 900)
def test_memory_is_bounded_without_logstash(shipped):
    """Of the forwarders, too; and the files of each writer."""
    shipped.stop()
    # What has been logged until now: given up as well, and not asked for again.
    earlier = shipped.missing()
    before, most, used = memory(shipped), {}, {"app": 0, "nginx": 0}
    since, dropped_before = moment(), shipped.dropped()
    with Load(shipped.stack) as load:
        until = time.monotonic() + 60 * MINUTES
        while time.monotonic() < until:
            time.sleep(1)
            for name, size in memory(shipped).items():
                most[name] = max(most.get(name, 0), size)
            for writer, size in used.items():
                files = shipped.stack.execute(writer, "du", "-sm", "/var/log/shipping")
                used[writer] = max(size, int(files.split()[0]))
    dropped = shipped.dropped() - dropped_before
    grown = {name: (most[name] - before[name]) / 2**20 for name in most}
    print(f"\nMB more than before, at most: {grown}; files: {used};"
          f" {dropped:.0f} lines dropped; {load.summary}")  # fmt: skip
    assert load.failed == [], load.summary
    assert all(size < 16 for size in grown.values())
    assert used["app"] <= 32 * 0.8
    assert used["nginx"] <= 64 * 0.8
    shipped.receive()
    shipped.settled(lambda: shipped.dropped() - dropped_before, 300)
    shipped.replay(since)
    assert shipped.missing() <= earlier


def memory(shipped) -> dict[str, float]:
    """Resident bytes of all processes."""
    return {
        name: total(shipped.metrics(name), "process_resident_memory_bytes")
        for name in ("app", *FORWARDERS)
    }
