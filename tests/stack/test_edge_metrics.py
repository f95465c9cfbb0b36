"""What nginx counts, asked as Prometheus asks: what it answers by itself, too."""

import raw
from clone import wait_until
from load import Load
from scrape import Growth, samples, total


def test_every_request_is_counted_once_by_all_workers_and_over_reloads(stack):
    growth = Growth(stack)
    with Load(stack) as load:
        load.carry_on(300)
        stack.make("reload")
        load.carry_on(300)
    assert load.failed == [], load.summary
    sent = len(load.results)
    growth.becomes(sent, "requests_total")
    growth.becomes(sent, "requests_total", status="200")
    growth.becomes(sent, "request_duration_seconds_count")


def test_what_nginx_answers_by_itself(stack, client):
    growth = Growth(stack)
    stack.compose("kill", "app")
    try:
        status = client.post("/diagnostics/echo").status_code
        assert status in (502, 504)
    finally:
        stack.start("app")
    assert raw.get(stack, "/.env") == 404
    assert raw.exchange(raw.handshake(stack), b"NONSENSE\r\n\r\n")
    for answered in (status, 404, 400):
        growth.becomes(1, "requests_total", status=str(answered))


def test_times_bytes_and_what_the_cache_did(stack, client):
    growth = Growth(stack)
    for _ in range(3):
        client.get("/diagnostics/page?cache=public,max-age=60&for=metrics")
    assert client.get("/diagnostics/work?ms=600").status_code == 200
    growth.becomes(4, "requests_total")
    growth.becomes(2, "cache_total", state="MISS")
    growth.becomes(2, "cache_total", state="HIT")
    growth.becomes(3, "request_duration_seconds_bucket", le="0.5")
    growth.becomes(4, "request_duration_seconds_bucket", le="1")
    growth.becomes(4, "request_duration_seconds_bucket", le="+Inf")
    assert 0.6 <= growth.of("request_duration_seconds_sum") < 2
    assert growth.of("response_bytes_total") > 1000


def test_what_clients_make_up_makes_no_series(stack, client):
    growth = Growth(stack)

    def send(name: str) -> None:
        for number in range(5):
            client.get(f"/{name}-{number}", headers={"X-Cache-Status": f"{name}{number}"})
            request = f"{name}{number} / HTTP/1.{number}\r\n\r\n"
            raw.exchange(raw.handshake(stack), request.encode())

    send("FOO")
    growth.becomes(10, "requests_total")
    before = samples(stack.edge_metrics()).keys()
    send("BAR")
    growth.becomes(20, "requests_total")
    assert samples(stack.edge_metrics()).keys() == before


def test_connections(stack, client):
    client.get("/diagnostics/hello")
    wait_until(
        lambda: total(stack.edge_metrics(), "nginx_connections", state="waiting") == 1,
        5,
        "the client's connection",
    )
    assert total(stack.edge_metrics(), "nginx_connections", state="active") == 2
