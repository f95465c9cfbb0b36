"""Releases on a real Swarm of three nodes, each under load of which every answer is counted.

Changes of the application are asked for through the nginx of one node; what touches nginx or a
whole node through a load balancer. About half an hour.
"""

import json
import re
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
from clone import wait_until
from load import Load
from nodes import NODES, Deployment, Front, docker, machines, variant
from releases import loading

REQUESTS = 20_000

# Another style sheet, and so another hashed name.
OTHER_STYLE = """
USER 0
RUN echo '/* v2 */' >> /app/webapp/static/page.css && cd /app \\
    && APP_ENV=development flask --app wsgi digest compile && chmod -R a+rX webapp/static
USER 10001:10001
"""
# A check of readiness that fails once /tmp/broken exists.
CHECK = r"""
USER 0
RUN printf '%s\n' 'import os' 'from webapp import health' \
    'health.check(lambda: "broken" if os.path.exists("/tmp/broken") else None)' >> /app/wsgi.py
USER 10001:10001
"""
# What is wrong with an image, as lines of its Dockerfile, and what `make swarm-deploy` says of it.
BROKEN = {
    "exits": ('CMD ["sh", "-c", "echo nothing to run; exit 3"]', r"non-zero exit \(3\)"),
    "never-ready": (
        CHECK + 'CMD ["sh", "-c", "touch /tmp/broken; exec python serve.py"]',
        "was ended because it was not healthy",
    ),
    "unready-after-a-minute": (
        CHECK + 'CMD ["sh", "-c", "(sleep 60; touch /tmp/broken) & exec python serve.py"]',
        # Swarm has different words for it, by how the process ends.
        r"unhealthy container|was not healthy",
    ),
}


@pytest.fixture(scope="module")
def swarm(stack):
    """Three nodes, and in their registry v1 and v2 of both images, and the broken ones."""
    with machines(stack, 3) as swarm:
        swarm.join()
        for version in ("v1", "v2"):
            for service in ("app", "nginx"):
                lines = [f"ENV APP_VERSION={version}"]
                if (version, service) == ("v2", "app"):
                    lines.append(OTHER_STYLE)
                with variant(f"{stack.name}-{service}", *lines) as made:
                    swarm.push(made, f"{service}:{version}")
        for name, (command, _) in BROKEN.items():
            lines = (f"ENV APP_VERSION={name}", command)
            with variant(f"{stack.name}-app", *lines) as made:
                swarm.push(made, f"app:{name}")
        yield swarm


@pytest.fixture(scope="module")
def site(swarm, tmp_path_factory):
    """The deployment, v1 of both images on all nodes."""
    site = Deployment(
        tmp_path_factory.mktemp("clone") / "site",
        swarm,
        IMAGES=swarm.images,
        APP_VERSION="v1",
        NGINX_VERSION="v1",
        # With fallback images for base images this has to be said; with others it changes nothing.
        BASE_IMAGES="debian",
        UPDATE_MONITOR="10s",
    )
    said = site.make("swarm-deploy").stdout
    assert said.splitlines()[-1] == f"{site.name} serves app v1, nginx v1"
    return site


@pytest.fixture
def front(site):
    """The nginx of one node."""
    return site


@pytest.fixture
def balancer(site, swarm):
    return Front(site, swarm.balancer_port)


def versions(site, service="app") -> set[str]:
    return {
        task["Spec"]["ContainerSpec"]["Image"].partition("@")[0].rpartition(":")[2]
        for task in site.tasks(service)
    }


def loses_nothing(front, change, requests=REQUESTS) -> Load:
    """The load during a change, of which every request was answered."""
    with Load(front, clients=6) as load:
        load.carry_on(100)
        change()
        load.carry_on(requests)
    print(load.summary)
    assert load.failed == [], load.summary
    return load


def test_addresses_in_the_access_log_are_the_clients(site, swarm):
    client = swarm.addresses["registry"]
    address = f"https://localhost:443/?from={client}"
    at = f"localhost:443:{swarm.addresses['node1']}"
    docker("exec", f"{swarm.name}-registry", "curl", "-sk", "--resolve", at, address)
    wait_until(
        lambda: any(
            f'"ip":"{client}"' in line and f"from={client}" in line
            for line in site.run(
                "docker", "service", "logs", "--raw", f"{site.name}_nginx"
            ).stdout.splitlines()
        ),
        10,
        "the client's address in the log",
    )


def test_what_swarm_does_not_know_is_made_up_for(swarm):
    """No program raises privileges, on a node and as the container sees it."""
    listed = swarm.on("node1", "ps", "--quiet")
    assert len(listed.split()) >= 2
    for container in listed.split():
        find = ["find", "/", "-xdev", "-type", "f", "-perm", "/6000"]
        assert swarm.on("node1", "exec", container, *find, check=False) == ""
        status = swarm.on("node1", "exec", container, "cat", "/proc/1/status")
        assert "CapBnd:\t0000000000000000" in status
        uid = status.partition("\nUid:")[2].split()[0]
        assert uid in ("101", "10001")
        swarm.on("node1", "exec", container, "touch", "/written", check=False)
        assert "written" not in swarm.on("node1", "exec", container, "ls", "/")


def test_an_update_and_a_rollback_lose_nothing(site, front):
    """Nor does a page miss a file, whichever version it is from."""
    with loading(site) as pages:
        files = pages.load()
        update = loses_nothing(front, lambda: site.make("swarm-deploy", APP_VERSION="v2"))
        assert {result.version for result in update.results} == {"v1", "v2"}
        assert {result.version for result in update.results[-100:]} == {"v2"}
        assert pages.load() != files
        back = loses_nothing(front, lambda: site.make("swarm-rollback"))
        assert {result.version for result in back.results[-100:]} == {"v1"}
        assert pages.load() == files


class Visitor:
    """Whose session has to be there at every visit, and who leaves something in it each time."""

    def __init__(self, front: Front):
        self.front, self.visits, self.lost = front, 0, []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.visit, daemon=True)

    def __enter__(self) -> "Visitor":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()

    def visit(self) -> None:
        with httpx.Client(base_url=self.front.url, verify=self.front.tls()) as client:
            client.get("/diagnostics/session?value=0")
            while not self.stop.wait(0.05):
                # A connection of its own, and so another replica.
                seen = client.get("/diagnostics/session").json()["value"]
                if seen != str(self.visits):
                    self.lost.append((time.monotonic(), seen))
                self.visits += 1
                client.get(f"/diagnostics/session?value={self.visits}")


def test_a_new_secret_key_loses_no_request_and_no_session(site, front):
    def rotate() -> None:
        for _ in range(2):
            site.make("rotate")
            site.make("swarm-deploy")

    before = (site.folder / "secrets/secret_key").read_text()
    with Visitor(front) as visitor:
        loses_nothing(front, rotate)
    assert visitor.visits > 100
    assert visitor.lost == []
    assert (site.folder / "secrets/secret_key").read_text() != before
    names = site.run("docker", "secret", "ls", "--format={{.Name}}").stdout
    # The key in use, and the one of before for a rollback.
    assert names.count("-secret-key-") == 2


def test_scaling_loses_nothing(site, front):
    def scale() -> None:
        for number in ("6", "2", "3"):
            site.make("swarm-deploy", APP_REPLICAS=number)
            assert len(site.tasks("app")) == int(number)

    loses_nothing(front, scale)


@pytest.mark.timeout(1200)
def test_what_touches_nginx_loses_nothing_behind_a_balancer(site, balancer):
    loses_nothing(balancer, lambda: site.make("swarm-deploy", NGINX_VERSION="v2"))
    assert versions(site, "nginx") == {"v2"}
    site.write_settings(NGINX_VERSION="v2")
    old = site.trusted
    site.certificate_pair()
    loses_nothing(balancer, lambda: site.make("swarm-deploy"))
    # Only the new one is served.
    site.trusted = site.trusted.removeprefix(old)
    loses_nothing(balancer, lambda: None, 200)


@pytest.mark.timeout(1200)
def test_a_drained_node_and_a_lost_manager_are_not_noticed(site, swarm, balancer):
    """It is the leader of the managers, and there are deploys without it."""
    node = swarm.leader()

    def drain_and_lose() -> None:
        swarm.ask("node", "update", "--availability=drain", node)
        wait_until(
            lambda: not swarm.on(node, "ps", "--quiet") and len(site.tasks("app")) == 3,
            90,
            "its tasks elsewhere",
        )
        swarm.kill(node)
        begin = time.monotonic()
        wait_until(lambda: swarm.leader() not in ("", node), 60, "another leader")
        print(f"{swarm.leader()} leads {time.monotonic() - begin:.0f} s after {node}")
        site.make("swarm-deploy", APP_VERSION="v2")
        assert "app: 3 of 3 run v2" in site.make("swarm-status").stdout

    load = loses_nothing(balancer, drain_and_lose)
    assert {result.version for result in load.results[-100:]} == {"v2"}
    swarm.start_again(node)
    swarm.ask("node", "update", "--availability=active", node)
    wait_until(lambda: swarm.ready_nodes() == 3, 60, "the node back")
    site.make("swarm-deploy")


# Seconds in which requests may still be sent to a node that fell silent. The balancer leaves it out
# after about 2; the other nodes' engines give it up, and their DNS its replica, after about 7.
# What needs a new connection meanwhile goes elsewhere (after 1 s in the balancer, 2 s in nginx).
KNOWN_TO_BE_DEAD = 10


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_killed_node_costs_its_own_connections_and_is_made_up_for(site, swarm, balancer, role):
    app = f"{site.name}_app"
    # A replica on each node: scaling evens out, which an update does only by chance.
    for number in (6, 3):
        site.run("docker", "service", "scale", f"{app}={number}")
    assert [swarm.healthy(node, app) for node in NODES] == [1, 1, 1]
    leads = swarm.leader()
    node = leads if role == "leader" else next(other for other in NODES if other != leads)
    others = [other for other in NODES if other != node]
    # Many that ask now and then, so that some are left when others wait for the dead node.
    with Load(balancer, clients=60, pause=0.5) as load:
        load.carry_on(1000)
        begin = time.monotonic()
        swarm.kill(node)
        wait_until(
            lambda: sum(swarm.healthy(other, app) for other in others) == 3,
            60,
            "three healthy replicas on two nodes",
        )
        for other in others:
            at = f"localhost:443:{swarm.addresses[other]}"
            curl = ("curl", "-sfk", "--max-time", "10", "--resolve", at)
            docker("exec", f"{swarm.name}-registry", *curl, "https://localhost/diagnostics/echo")
        complete = time.monotonic()
        load.carry_on(REQUESTS)
    assert complete - begin <= 60
    last = max((result.begin - begin for result in load.failed), default=0)
    print(f"complete after {complete - begin:.0f} s, last failure sent at {last:.1f} s;")
    print(load.summary)
    # Nothing but silence: nobody refuses a connection, cuts one off or has no replica to ask.
    loud = [r for r in load.failed if r.status != 504 and "ReadTimeout" not in r.error]
    assert loud == [], load.summary
    early_or_late = [r for r in load.failed if not r.end > begin > r.begin - KNOWN_TO_BE_DEAD]
    assert early_or_late == [], load.summary
    # A client waits for one answer at a time; silence lasts 30 s (nginx) or 40 s (the client), and
    # then the node is known to be dead. So nobody meets it twice.
    assert len(load.failed) <= len(load.threads), load.summary
    swarm.start_again(node)
    wait_until(lambda: swarm.ready_nodes() == 3, 60, "the node back")
    site.make("swarm-deploy")
    # Swarm moves nothing back; what an update replaces goes where there is least.
    assert not swarm.healthy(node, app)
    site.run("docker", "service", "update", "--force", app)
    assert swarm.healthy(node, app)
    wait_until(
        lambda: not site.make("swarm-status", check=False).returncode, 60, "the update's end"
    )


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_never_takes_over(site, front, name):
    monitor = "100s" if "minute" in name else "10s"
    with Load(front, clients=2) as load:
        answer = site.make("swarm-deploy", APP_VERSION=name, UPDATE_MONITOR=monitor, check=False)
        load.carry_on(500)
    print(load.summary)
    assert answer.returncode
    said = answer.stderr.splitlines()[-2]
    nginx = site.settings["NGINX_VERSION"]
    assert f"what served before serves again: app v1, nginx {nginx}" in said
    assert re.search(BROKEN[name][1], answer.stdout), answer.stdout
    assert versions(site) == {"v1"}
    if "minute" not in name:
        assert {result.version for result in load.results} == {"v1"}
    assert load.failed == [], load.summary


def test_an_image_that_only_one_node_has_never_takes_over(site, swarm, balancer):
    for name in ("app", "nginx"):
        swarm.on("node1", "tag", f"{swarm.images}/{name}:v1", f"local/{name}:v1")
    # nginx is to be replaced, too.
    with Load(balancer, clients=2) as load:
        answer = site.make("swarm-deploy", IMAGES="local", NGINX_VERSION="v1", check=False)
        load.carry_on(200)
    assert load.failed == [], load.summary
    assert answer.returncode
    assert "note: IMAGES names no registry" in answer.stdout
    assert "what served before serves again" in answer.stderr
    assert "No such image" in answer.stdout
    assert {result.version for result in load.results} == {"v1"}


def test_an_update_that_no_node_can_take_ends_in_time(site, swarm, front):
    with ExitStack() as nodes, Load(front, clients=2) as load:
        for node in NODES:
            swarm.on("node1", "node", "update", "--availability=pause", node)
            nodes.callback(swarm.on, "node1", "node", "update", "--availability=active", node)
        answer = site.make("swarm-deploy", APP_VERSION="v2", DEPLOY_TIMEOUT="20", check=False)
        load.carry_on(200)
    assert answer.returncode
    assert "not within 30 s" in answer.stderr
    assert "no suitable node" in answer.stderr
    assert "what served before serves again: app v1" in answer.stderr
    assert load.failed == [], load.summary
    assert {result.version for result in load.results} == {"v1"}


def test_a_port_that_is_taken_is_given_up_again(site, swarm, balancer):
    """What is not part of a task is brought back as well."""
    site.run(
        *("docker", "service", "create", "--detach", "--name=holder", "--mode=global"),
        *("--publish=mode=host,target=80,published=8088", "--entrypoint=sleep 600"),
        f"{swarm.images}/app:v1",
    )
    try:
        with Load(balancer, clients=2) as load:
            answer = site.make("swarm-deploy", HTTP_PORT="8088", DEPLOY_TIMEOUT="20", check=False)
            load.carry_on(200)
        assert answer.returncode
        assert "what served before serves again: app v1" in answer.stderr
        assert load.failed == [], load.summary
        spec = site.run("docker", "service", "inspect", f"{site.name}_nginx").stdout
        assert {
            port["PublishedPort"] for port in json.loads(spec)[0]["Spec"]["EndpointSpec"]["Ports"]
        } == {80, 443}
    finally:
        site.run("docker", "service", "rm", "holder")


@pytest.mark.timeout(1200)
def test_five_rounds_of_undeploy_and_deploy(site, front):
    for _ in range(5):
        site.make("swarm-undeploy")
        networks = site.run("docker", "network", "ls", "--format={{.Name}}").stdout
        assert site.name not in networks
        assert not site.run("docker", "secret", "ls", "--quiet").stdout
        site.make("swarm-deploy")
        with httpx.Client(base_url=front.url, verify=front.tls()) as client:
            assert client.post("/diagnostics/echo").status_code == 200
    site.make("swarm-undeploy")


def test_a_first_version_that_does_not_start_is_said_not_to(site):
    answer = site.make("swarm-deploy", APP_VERSION="exits", check=False)
    assert answer.returncode
    assert "tasks failed; " in answer.stderr
    assert (
        "there is no version before it -> make swarm-status, make swarm-undeploy" in answer.stderr
    )
    assert "nothing to run" in answer.stderr
    site.make("swarm-undeploy")
