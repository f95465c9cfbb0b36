"""Ten minutes of visits to a healthy stack: nobody is told of anything."""

import time

import pytest
from load import Load

MINUTES = 10


@pytest.mark.timeout(60 * MINUTES + 300)
def test_no_alert_without_a_cause(addon):
    with Load(addon.stack, clients=2, pause=0.2) as load:
        end = time.monotonic() + 60 * MINUTES
        while time.monotonic() < end:
            load.carry_on(100)
    assert load.failed == [], load.summary
    query = f'count_over_time(ALERTS{{alertname!="Watchdog"}}[{MINUTES}m])'
    seen = {(s["metric"]["alertname"], s["metric"]["alertstate"]) for s in addon.query(query)}
    print(f"{len(load.results)} requests; pending for a moment: {seen}")
    assert "firing" not in {state for _, state in seen}, seen
    assert addon.receiver.alerts == []
    assert addon.receiver.calls > MINUTES
