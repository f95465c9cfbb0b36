"""Three containers of the application that die, bounce, refuse or lose packets, under load."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clone import engine, wait_until
from load import Load
from replicas import three, wait_until_all_are_asked


@pytest.fixture(scope="module")
def scaled(stack):
    with three(stack):
        yield stack


@pytest.fixture
def replicas(scaled):
    """All of them at work, whatever was done to them before."""
    wait_until(lambda: scaled.is_healthy("app"), 30, "all healthy")
    wait_until_all_are_asked(scaled)
    return scaled


@pytest.fixture
def rules(stack):
    """rules(containers, *rules): iptables rules in the containers' networks, in a `with` block.

    They are made by containers beside them, since they may do nothing of the kind themselves.
    """
    with stack.image(Path(__file__).parent / "node") as image:

        def iptables(container: str, command: str, rules: tuple[str, ...]) -> None:
            stack.run(
                *("docker", "run", "--rm", f"--network=container:{container}"),
                *("--cap-add=NET_ADMIN", "--entrypoint=sh", image, "-ec"),
                "\n".join(f"iptables --{command} {rule}" for rule in rules),
            )

        @contextmanager
        def apply(containers: list[str], *rules: str) -> Iterator[None]:
            with ExitStack() as undo:
                for container in containers:
                    iptables(container, "append", rules)
                    undo.callback(iptables, container, "delete", rules)
                yield

        yield apply


def test_a_replica_that_dies_loses_only_what_it_had_and_comes_back(replicas):
    """Twice: whether a request waits for it while Docker's DNS changes (@again) is chance."""
    deaths = []
    with Load(replicas, clients=8) as load:
        for victim in replicas.inspect("app")[:2]:
            before, name = len(load.results), victim["Config"]["Hostname"]
            wait_until(lambda before=before: len(load.results) > before + 200, 20, "load")
            killed = time.monotonic()
            replicas.run("docker", "kill", victim["Id"])
            deaths.append((killed - 5, time.monotonic() + 0.5))
            time.sleep(3)
            replicas.run("docker", "start", victim["Id"])
            back = time.monotonic()
            wait_until(
                lambda name=name, back=back: any(
                    r.replica == name and r.begin > back for r in load.results[-100:]
                ),
                60,
                "answers of the replica",
            )
    # What was there already is lost: POSTs, and GETs whose answer had begun.
    assert len(load.failed) <= 16
    assert all(any(low < r.begin < high for low, high in deaths) for r in load.failed)
    assert {(r.method, r.status) for r in load.failed} <= {("POST", 502), ("POST", 0), ("GET", 0)}


def test_replicas_that_all_bounce_are_found_as_soon_as_one_is_back(replicas):
    """nginx must not leave them out for longer than they are away."""
    containers = replicas.containers("app")
    with Load(replicas, clients=8) as load:
        wait_until(lambda: len(load.results) > 200, 20, "load")
        replicas.run("docker", "restart", "--time", "1", *containers)
        back = time.monotonic()
        wait_until(lambda: "healthy" in health(replicas), 60, "one that is healthy")
        ready = time.monotonic()
        wait_until(lambda: load.good_since(back), 30, "an answer")
        wait_until(lambda: set(health(replicas)) == {"healthy"}, 60, "all healthy")
        settled = time.monotonic()
        wait_until(lambda: load.good_since(settled + 5), 60, "load afterwards")
    first = min(
        (result.end for result in load.results if result.status == 200 and result.begin > back),
    )
    # A busy machine takes longer for both.
    assert first - ready < max(3, ready - back)
    assert [result for result in load.failed if result.begin > settled + 2] == []


def health(replicas) -> list[str]:
    return [container["State"]["Health"]["Status"] for container in replicas.inspect("app")]


def test_replicas_that_all_refuse_are_found_as_soon_as_they_listen(replicas, rules):
    """Unlike those that bounce they stay in Docker's DNS, so that nginx does not forget them."""
    refuse = "INPUT --protocol=tcp --dport=8000 --jump=REJECT --reject-with=tcp-reset"
    with Load(replicas, clients=8) as load:
        wait_until(lambda: len(load.results) > 200, 20, "load")
        with rules(replicas.containers("app"), refuse):
            refused = time.monotonic()
            wait_until(lambda: time.monotonic() > refused + 3, 4, "three seconds")
            assert not load.good_since(refused)
        listening = time.monotonic()
        wait_until(lambda: load.good_since(listening), 20, "an answer")
        served = time.monotonic()
        wait_until(lambda: load.good_since(served + 3), 20, "load afterwards")
    # fail_timeout, and a busy machine
    assert served - listening < 3
    assert [result for result in load.failed if result.begin > listening + 3] == []


def test_lost_packets_lose_no_request(replicas, rules):
    """One of ten between nginx and the application, in each direction."""
    lose = "--protocol=tcp --match=statistic --mode=random --probability=0.1 --jump=DROP"
    lossy = rules(replicas.containers("app"), f"INPUT {lose}", f"OUTPUT {lose}")
    with lossy, Load(replicas, clients=8) as load:
        load.carry_on(1000)
    assert load.failed == [], load.summary


def test_each_replica_is_asked_once_for_a_hashed_file(replicas):
    """During a rollout some have it. No other missing name makes more requests than one."""
    for name, requests in ((f"x-{'0' * 32}.css", 3), ("x.css", 1)):
        with replicas.client() as client:
            answer = client.get(f"/static/{name}")
        assert answer.status_code == 404
        (line,) = replicas.lines_of(answer.headers["X-Request-ID"], "nginx")
        assert line["nginx"]["upstream"]["status"] == ", ".join(["404"] * requests)


def test_no_post_is_sent_twice(replicas):
    """Whatever happens to the replicas. By nginx's log, which has a time for each that was sent."""
    since = datetime.now(UTC).isoformat()
    with Load(replicas, clients=8) as load:
        for container in replicas.containers("app"):
            before = len(load.results)
            wait_until(lambda before=before: len(load.results) > before + 100, 60, "load")
            replicas.run("docker", "restart", "--time", "0", container)
        # One of each method that surely has begun when its replica is killed.
        statuses = [killed_at_work(replicas, method, since) for method in ("GET", "POST")]
        load.carry_on(0)
    assert statuses == [200, 502]
    sent = {"GET": [], "POST": []}
    for text in replicas.stdout(replicas.containers("nginx")[0], since):
        line = json.loads(text)
        if line["url"]["query"].startswith("load="):
            times = re.split(" : |, ", line["nginx"]["upstream"]["connect_time"])
            sent[line["http"]["request"]["method"]].append(len([t for t in times if t != "-"]))
    assert len(sent["POST"]) > 100
    assert max(sent["POST"]) == 1
    # The log does show what was sent again. (A third time, if nobody took the second: @again.)
    assert max(sent["GET"]) > 1


def killed_at_work(replicas, method: str, since: str) -> int:
    """The status of a request whose replica is killed while it works on that."""
    ms = {"GET": 5001, "POST": 5002}[method]

    def victims() -> list[str]:
        return [
            container
            for container in replicas.containers("app")
            if f"working for {ms} ms" in "".join(replicas.stdout(container, since))
        ]

    wait_until(lambda: replicas.is_healthy("app"), 60, "all healthy")
    with replicas.client(timeout=60) as client, ThreadPoolExecutor() as pool:
        path = f"/diagnostics/work?load={method}&ms={ms}"
        answer = pool.submit(client.request, method, path)
        (victim,) = wait_until(victims, 20, "it to begin")
        engine().restart(victim, timeout=0)
        return answer.result().status_code
