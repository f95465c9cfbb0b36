"""What a page of metrics says."""

from clone import Clone, wait_until
from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[tuple[str, frozenset], float]:
    """{(name, frozenset of label pairs): value}"""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(text: str, name: str, **labels: str) -> float:
    """The sum over all samples of the name that have these labels."""
    return sum(
        value
        for (found, pairs), value in samples(text).items()
        if found == name and labels.items() <= dict(pairs).items()
    )


class Growth:
    """By how much a counter of nginx has grown since this was made."""

    def __init__(self, stack: Clone):
        self.stack = stack
        self.before = stack.edge_metrics()

    def of(self, name: str, **labels: str) -> float:
        now = self.stack.edge_metrics()
        return total(now, f"nginx_http_{name}", **labels) - total(
            self.before, f"nginx_http_{name}", **labels
        )

    def becomes(self, expected: float, name: str, **labels: str) -> None:
        """A request is counted when its answer is sent: clients may have it a moment earlier."""
        wait_until(lambda: self.of(name, **labels) >= expected, 5, f"{expected} of {name} {labels}")
        assert self.of(name, **labels) == expected
