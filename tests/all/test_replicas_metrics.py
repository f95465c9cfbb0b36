"""/metrics of every container of the application, asked as Prometheus asks: by its own address."""

from clone import Clone
from load import Load
from scrape import total

# `make soak` sends ten thousand.
REQUESTS = 2000


def addresses(stack: Clone) -> list[str]:
    return [
        network["IPAddress"]
        for container in stack.inspect("app")
        for network in container["NetworkSettings"]["Networks"].values()
    ]


def read(stack: Clone, addresses: list[str]) -> list[str]:
    """No connection is kept, so that every worker is asked."""
    return stack.fetch(*(f"http://{address}:8000/metrics" for address in addresses))


def requests(stack: Clone, addresses: list[str]) -> list[float]:
    name, route = "flask_http_request_duration_seconds_count", "/diagnostics/echo"
    return [total(text, name, route=route) for text in read(stack, addresses)]


def test_sums_are_exact_and_never_go_back(stack):
    sums_are_exact(stack, REQUESTS)


def sums_are_exact(stack, number: int):
    """Four workers in each of three replicas, asked fifty times while they count."""
    with stack.changed(APP_REPLICAS="3", WEB_CONCURRENCY="4"):
        replicas = addresses(stack)
        assert len(replicas) == 3
        before = seen = requests(stack, replicas)
        with Load(stack, clients=6) as load:
            for _ in range(50):
                now = requests(stack, replicas)
                assert all(value >= last for value, last in zip(now, seen, strict=True))
                seen = now
            load.carry_on(number)
        assert load.failed == [], load.summary
        assert sum(requests(stack, replicas)) - sum(before) == len(load.results)
        for text in read(stack, replicas):
            assert total(text, "app_threads") == 16
            assert total(text, "app_requests_in_flight") == 0
            assert total(text, "app_memory_limit_bytes") == 512 * 1024**2
            assert 0 < total(text, "app_memory_bytes") < 512 * 1024**2
            assert total(text, "process_resident_memory_bytes", worker="3") > 0
