"""Every thread is busy with what makes progress: nothing is restarted, and who waits is told so."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import load
import pytest
from clone import Clone, wait_until
from nodes import Deployment, base_image, machines, stands_in

# The default: two workers with four threads each.
THREADS = 8
# Longer than a minute, after which what is stuck is replaced.
SECONDS = 100


@pytest.fixture(scope="module")
def compose(tmp_path_factory) -> Iterator[Clone]:
    clone = Clone(tmp_path_factory.mktemp("clone") / "busy", APP_ENV="testing", **load.LIMITS)
    try:
        clone.make("up")
        yield clone
    finally:
        clone.remove()


@pytest.fixture(scope="module")
def swarm(compose, tmp_path_factory) -> Iterator[Deployment]:
    """The same, one container of the application, in a Swarm of one node."""
    with machines(compose, 1) as nodes:
        nodes.load("node1", *(base_image(compose, service) for service in ("app", "nginx")))
        images = "debian" if stands_in(compose) else "registry"
        site = Deployment(
            tmp_path_factory.mktemp("clone") / "site", nodes, APP_REPLICAS="1", BASE_IMAGES=images
        )
        site.run("git", "init", "--quiet")
        site.commit("One")
        site.make("swarm-init")
        site.make("swarm-deploy", UPDATE_MONITOR="5s")
        yield site


@pytest.fixture(params=["compose", "swarm"])
def site(request) -> Clone:
    site = request.getfixturevalue(request.param)
    site.context = site.tls()
    return site


@contextmanager
def nothing_restarts(site: Clone) -> Iterator[None]:
    """From the beginning of the block to its end, and every health check is a good one."""
    unhealthy, stop = [], threading.Event()

    def state() -> object:
        if isinstance(site, Deployment):
            # Swarm replaces a task that is unhealthy.
            return site.ids("app")
        (app,) = site.inspect("app")
        return app["Id"], app["State"]["StartedAt"], site.children("app")

    def watch() -> None:
        while not stop.wait(1):
            health = site.inspect("app")[0]["State"]["Health"]
            if health["Status"] != "healthy" or health["FailingStreak"]:
                unhealthy.append(health)

    before, watcher = state(), threading.Thread(target=watch)
    if not isinstance(site, Deployment):
        watcher.start()
    try:
        yield
    finally:
        stop.set()
        if watcher.ident:
            watcher.join()
    assert unhealthy == []
    assert state() == before


def receive(site: Clone, path: str, rate: float = 0) -> tuple[int, int, float]:
    """Status, bytes and seconds of a GET, read at so many bytes a second."""
    begin, total = time.monotonic(), 0
    with (
        httpx.Client(base_url=site.url, verify=site.context, timeout=60) as client,
        client.stream("GET", path) as answer,
    ):
        for part in answer.iter_raw(65536):
            total += len(part)
            while rate and total / rate > time.monotonic() - begin:
                time.sleep(0.05)
        return answer.status_code, total, time.monotonic() - begin


def test_full_load_restarts_nothing(site):
    """Streams of events on all threads, and more of them than there are threads."""
    with (
        nothing_restarts(site),
        ThreadPoolExecutor(40) as pool,
        httpx.Client(base_url=site.url, verify=site.context, timeout=40) as client,
    ):
        path = f"/diagnostics/stream?parts={SECONDS}&ms=1000"
        streams = [pool.submit(receive, site, path) for _ in range(24)]
        others = []
        while not all(stream.done() for stream in streams):
            others.append(client.post("/diagnostics/echo"))
            # Without a cookie: from nginx's cache.
            assert client.get("/").status_code in (200, 503)
        results = [stream.result() for stream in streams]
        served = [total for status, total, _ in results if status == 200]
        refused = [seconds for status, _, seconds in results if status == 503]
        # Whole; and one more for each thread that looked like it was sending to a slow reader.
        assert {*served} == {8 * SECONDS}
        assert THREADS <= len(served) == 24 - len(refused)
        assert max(refused) < 13
        # While they go on, visitors learn in time that they have to come again.
        assert Counter(answer.status_code for answer in others).keys() <= {200, 503}
        late = [answer for answer in others if answer.status_code == 503]
        assert late
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in late)
        assert max(answer.elapsed.total_seconds() for answer in late) < 13
        wait_until(lambda: client.post("/diagnostics/echo").status_code == 200, 5, "free threads")


def test_quick_requests_wait_for_no_slow_one(site):
    """Five of eight threads are busy, in workers that differ from run to run."""
    with (
        ThreadPoolExecutor(5) as pool,
        httpx.Client(base_url=site.url, verify=site.context, timeout=40) as client,
    ):
        slow = [pool.submit(receive, site, "/diagnostics/work?ms=8000") for _ in range(5)]
        taken = []
        for _ in range(60):
            answer = client.post("/diagnostics/echo")
            assert answer.status_code == 200
            taken.append(answer.elapsed.total_seconds())
        assert not any(request.done() for request in slow)
        assert max(taken) < 2
        assert {request.result()[0] for request in slow} == {200}


def test_downloads_take_no_thread_from_others(compose):
    """More large answers of a view than there are threads, to clients that read them slowly."""
    site = compose
    site.context = site.tls()
    size, rate = 40_000_000, 600_000
    path = f"/diagnostics/stream?parts={size // 50_000}&bytes=50000"
    with (
        nothing_restarts(site),
        ThreadPoolExecutor(40) as pool,
        httpx.Client(base_url=site.url, verify=site.context, timeout=40) as client,
    ):
        downloads = [pool.submit(receive, site, path, rate) for _ in range(2 * THREADS)]
        others = []
        while not all(download.done() for download in downloads):
            others.append(client.post("/diagnostics/echo"))
            time.sleep(0.05)
        assert {download.result()[:2] for download in downloads} == {(200, size)}
    assert {answer.status_code for answer in others} == {200}
    taken = sorted(answer.elapsed.total_seconds() for answer in others)
    # At the beginning some wait until the worker notices who reads slowly.
    assert taken[len(taken) * 98 // 100] < 1
    assert taken[-1] < 10


def test_stuck_workers_are_replaced(compose):
    """More requests than there are threads, none of which ends."""
    site = compose
    site.context = site.tls()

    def stick() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{site.url}/diagnostics/work?ms=600000", verify=site.context, timeout=40)

    with ThreadPoolExecutor(40) as pool, httpx.Client(verify=site.context, timeout=40) as client:

        def status() -> int:
            return client.post(f"{site.url}/diagnostics/echo").status_code

        begin = time.monotonic()
        for _ in range(40):
            pool.submit(stick)
        wait_until(lambda: status() == 503, 20, "no free thread")
        wait_until(lambda: status() == 200, 100, "a new worker")
        assert 55 < time.monotonic() - begin < 90
        # The other worker, too.
        wait_until(lambda: {status() for _ in range(30)} == {200}, 30, "all of them")
