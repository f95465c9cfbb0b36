"""What a page of metrics says."""

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
