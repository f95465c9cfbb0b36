"""As test_replicas_metrics.py, five times as long."""

from test_replicas_metrics import sums_are_exact


def test_sums_are_exact_for_long(stack):
    sums_are_exact(stack, 10_000)
