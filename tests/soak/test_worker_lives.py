"""/metrics after a thousand lives of workers: neither slower nor larger. About ten minutes."""

import statistics

import pytest
from clone import Clone, wait_until

LIVES = 1000


# Runs in the application's container.
SCRAPE = """
import time, urllib.request
for _ in range(41):
    begin = time.monotonic()
    size = len(urllib.request.urlopen("http://localhost:8000/metrics").read())
    print(time.monotonic() - begin, size)
"""


def scrape(stack: Clone) -> tuple[float, int]:
    """Median seconds of a response, and its bytes."""
    lines = stack.execute("app", "python", "-c", SCRAPE).splitlines()
    times, sizes = zip(*(line.split() for line in lines), strict=True)
    return statistics.median(map(float, times)), int(sizes[-1])


def visit(stack: Clone, number: int) -> None:
    with stack.client() as client:
        for _ in range(number):
            assert client.post("/diagnostics/echo").status_code == 200


@pytest.mark.timeout(3600)
def test_a_thousand_lives_of_workers_cost_nothing(stack):
    with stack.changed(WEB_CONCURRENCY="4"):
        visit(stack, 400)
        before = scrape(stack)
        lives = 0
        while lives < LIVES:
            old = stack.children("app")
            stack.execute("app", "python", "-c", f"import os; [os.kill(p, 9) for p in {old}]")
            wait_until(lambda: len(set(stack.children("app")) - set(old)) == 4, 30, "new workers")  # noqa: B023
            wait_until(lambda: stack.is_healthy("app"), 30, "them to answer")
            visit(stack, 4)
            lives += 4
        visit(stack, 400)
        after = scrape(stack)
    print(f"{lives} lives: {before[0]:.4f} s, {before[1]} B; then {after[0]:.4f} s, {after[1]} B")
    assert after[0] <= 1.2 * before[0]
    assert after[1] <= 1.2 * before[1]
