"""/metrics of every container of the application, asked as Prometheus asks: by its own address."""

import httpx
from clone import Clone
from load import Load
from scrape import total

# `make soak` sends ten thousand.
REQUESTS = 2000

# One, because making it reads the system's certificates, which takes longer than a request. No
# connection is kept, so that every worker is asked.
CLIENT = httpx.Client(headers={"Connection": "close"})


def addresses(stack: Clone) -> list[str]:
    return [
        network["IPAddress"]
        for container in stack.inspect("app")
        for network in container["NetworkSettings"]["Networks"].values()
    ]


def read(address: str) -> str:
    answer = CLIENT.get(f"http://{address}:8000/metrics")
    answer.raise_for_status()
    return answer.text


def requests(address: str) -> float:
    return total(
        read(address), "flask_http_request_duration_seconds_count", route="/diagnostics/echo"
    )


def test_sums_are_exact_and_never_go_back(stack):
    sums_are_exact(stack, REQUESTS)


def sums_are_exact(stack, number: int):
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
            load.carry_on(number)
        assert load.failed == [], load.summary
        counted = sum(requests(address) - before[address] for address in replicas)
        assert counted == len(load.results)
        for address in replicas:
            text = read(address)
            assert total(text, "app_threads") == 16
            assert total(text, "app_requests_in_flight") == 0
            assert total(text, "app_memory_limit_bytes") == 512 * 1024**2
            assert 0 < total(text, "app_memory_bytes") < 512 * 1024**2
            assert total(text, "process_resident_memory_bytes", worker="3") > 0
