"""/metrics of one process, and of real gunicorn whose workers come and go."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from clone import wait_until
from conftest import APP
from scrape import samples, total
from webapp import metrics


@pytest.fixture
def read(client):
    return lambda: client.get("/metrics").text


def count(text, **labels):
    return total(text, "flask_http_request_duration_seconds_count", **labels)


def test_requests_by_route_method_and_status(client, read):
    client.get("/diagnostics/hello")
    client.get("/diagnostics/hello")
    client.post("/diagnostics/hello")
    client.get("/diagnostics/status/503")
    text = read()
    assert count(text, route="/diagnostics/hello", method="GET", status="200") == 2
    assert count(text, route="none", method="POST", status="405") == 1
    assert count(text, route="/diagnostics/status/<int:code>", status="503") == 1


def test_what_scanners_make_up_makes_no_series(client, read):
    client.get("/nowhere")
    before = samples(read()).keys()
    for number in range(20):
        client.get(f"/wp-{number}.php")
        assert client.open("/", method=f"FOO{number}").status_code == 405
    assert samples(read()).keys() == before
    assert count(read(), route="none") == 21


def test_a_method_that_is_none_names_those_that_are(client):
    allowed = client.open("/", method="FOOBAR").headers["Allow"]
    assert allowed.split(", ") == list(metrics.METHODS)


def test_questions_of_the_inside_are_not_counted(client, read):
    for _ in range(3):
        for path in ("/livez", "/readyz", "/metrics"):
            client.get(path)
    assert count(read()) == 0
    assert total(read(), "app_requests_in_flight") == 0


def test_exceptions_by_type_and_route(client, read):
    client.get("/diagnostics/error")
    text = read()
    assert total(text, "app_exceptions_total", type="RuntimeError", route="/diagnostics/error") == 1
    assert count(text, route="/diagnostics/error", status="500") == 1


def test_version_commit_and_threads(make_app):
    app = make_app(APP_VERSION="1.2", APP_COMMIT="abc", WEB_THREADS="7")
    text = app.test_client().get("/metrics").text
    assert total(text, "app_info", version="1.2", commit="abc") == 1
    assert total(text, "app_threads") == 7
    assert total(text, "app_ready") == 1


def test_a_counter_of_a_view(app, client, read):
    orders = metrics.Counter("shop_orders_total", "Orders placed.", ["payment"])
    app.add_url_rule("/order", view_func=lambda: orders.labels("invoice").inc() or "thanks")
    client.get("/order")
    assert total(read(), "shop_orders_total", payment="invoice") == 1


@pytest.mark.parametrize("query", ["?name[]=app_info", "?name[]=", "?name[]=%00&x[]", "?%ff"])
def test_odd_questions_are_answered(client, query):
    assert "app_info" in client.get(f"/metrics{query}").text


def test_openmetrics_when_asked(client):
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_what_a_proxy_passes_on_is_not_found(client):
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 404


def workers(server):
    children = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    with open(children) as file:
        return [int(pid) for pid in file.read().split()]


def kill(server, number):
    """Kill the first worker and wait until there are `number` again, which answer."""
    victim = workers(server)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: len(now := workers(server)) == number and victim not in now, 10, "another worker"
    )
    server.get("/livez")


def read_from(server):
    return server.get("/metrics").decode()


def folder_of(server):
    """Where the workers of the server keep their metrics: files that they map as they start."""
    maps = Path(f"/proc/{workers(server)[0]}/maps")
    found = wait_until(lambda: re.search(r"(\S+/metrics-\w+)/", maps.read_text()), 60, "files")
    return Path(found[1])


def test_workers_come_and_go_and_nothing_is_lost(serve):
    server = serve(WEB_CONCURRENCY="2")
    server.wait()
    folder = folder_of(server)
    for life in range(1, 7):
        for _ in range(20):
            server.get("/diagnostics/hello")
        text = read_from(server)
        assert count(text, route="/diagnostics/hello") == 20 * life
        # A worker that has just been forked is a child before it has an application.
        wait_until(lambda: total(read_from(server), "app_threads") == 8, 10, "both workers")
        kill(server, 2)
    wait_until(lambda: total(read_from(server), "app_worker_starts_total") == 8, 10, "all starts")
    text = read_from(server)
    numbers = {dict(pairs).get("worker") for name, pairs in samples(text)} - {None}
    assert numbers == {"0", "1"}
    assert {file.name.rpartition("_")[2] for file in folder.glob("*.db")} == {"0.db", "1.db"}
    server.stop()
    assert not folder.exists()


def test_a_process_that_a_worker_forks_counts_apart():
    code = """
import os, worker_slots
from prometheus_client import Counter
counter = Counter("jobs_total", "Jobs.")
counter.inc()
if child := os.fork():
    os.waitpid(child, 0)
    counter.inc()
else:
    counter.inc(10)
    os._exit(0)
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=APP, check=True, capture_output=True, text=True
    )
    assert "jobs_total 12.0" in answer.stdout, answer.stderr


def test_what_a_killed_worker_was_doing_is_not_in_flight_for_ever(serve):
    server = serve(WEB_CONCURRENCY="1", WEB_THREADS="2")
    server.wait()
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"GET /diagnostics/work?ms=9000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(
            lambda: total(read_from(server), "app_requests_in_flight") == 1, 10, "the slow request"
        )
        kill(server, 1)
    assert total(read_from(server), "app_requests_in_flight") == 0


def test_a_file_that_a_worker_is_just_making_is_no_error(serve):
    server = serve(WEB_CONCURRENCY="1")
    server.wait()
    (folder_of(server) / "counter_1.db").touch()
    assert total(read_from(server), "app_worker_starts_total") == 1
