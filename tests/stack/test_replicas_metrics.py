"""/metrics of every container of the application, asked as Prometheus asks: by its own address."""

import httpx
from clone import Clone
from load import Load
from prometheus_client.parser import text_string_to_metric_families


def addresses(stack: Clone) -> list[str]:
    return [
        network["IPAddress"]
        for container in stack.inspect("app")
        for network in container["NetworkSettings"]["Networks"].values()
    ]


def sample(address: str, name: str, **labels: str) -> float:
    """The sum over the samples of the name that have these labels."""
    answer = httpx.get(f"http://{address}:8000/metrics")
    answer.raise_for_status()
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def requests(address: str) -> float:
    return sample(address, "flask_http_request_duration_seconds_count", route="/diagnostics/echo")


def test_sums_are_exact_and_never_go_back(stack):
    """Four workers in each of three replicas, asked fifty times while they count."""
    with stack.changed(APP_REPLICAS="3", WEB_CONCURRENCY="4"):
        replicas = addresses(stack)
        assert len(replicas) == 3
        before = {address: requests(address) for address in replicas}
        seen = dict(before)
        with Load(stack, clients=6) as load:
            for _ in range(50):
                for address in replicas:
                    now = requests(address)
                    assert now >= seen[address]
                    seen[address] = now
            load.carry_on(2000)
        assert load.failed == [], load.summary
        counted = sum(requests(address) - before[address] for address in replicas)
        assert counted == len(load.results)
        for address in replicas:
            assert sample(address, "app_threads") == 16
            assert sample(address, "app_requests_in_flight") == 0
            assert sample(address, "app_memory_limit_bytes") == 512 * 1024**2
            assert 0 < sample(address, "app_memory_bytes") < 512 * 1024**2
            assert sample(address, "process_resident_memory_bytes", worker="3") > 0
