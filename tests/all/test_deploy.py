"""`make swarm-deploy` and the like on a Swarm of one node (tests/nodes.py).

`make soak` has three nodes, longer loads and more faults (tests/soak/test_swarm.py).
"""

import json
import time

import pytest
from clone import wait_until
from load import Load
from nodes import Deployment, base_image, docker, machines, stands_in

# Where Docker keeps what containers print.
LOGS = "/var/lib/docker/containers"


@pytest.fixture(scope="module")
def machine(stack):
    """A machine with an engine of its own, which has the base images."""
    with machines(stack, 1) as machines_:
        # What containers print goes to a disk of its own, for the test that fills it.
        docker(
            "exec", f"{machines_.name}-node1", "mount", "-t", "tmpfs", "-o", "size=128m", LOGS, LOGS
        )
        machines_.load("node1", *(base_image(stack, service) for service in ("app", "nginx")))
        yield machines_


@pytest.fixture(scope="module")
def site(stack, machine, tmp_path_factory):
    """A clone with a history, deployed there once."""
    site = Deployment(
        tmp_path_factory.mktemp("clone") / "site",
        machine,
        APP_REPLICAS="2",
        UPDATE_MONITOR="5s",
        BASE_IMAGES="debian" if stands_in(stack) else "registry",
    )
    site.run("git", "init", "--quiet")
    site.commit("One")
    assert "error: this engine is in no Swarm -> make release" in refused(site)
    site.make("swarm-init")
    site.said = site.make("swarm-deploy").stdout
    return site


def refused(site: Deployment, **settings: str) -> str:
    """What `make swarm-deploy` says when it refuses, which takes no build."""
    answer = site.make("swarm-deploy", check=False, **settings)
    assert answer.returncode
    return next(line for line in answer.stderr.splitlines() if line.startswith("error: "))


def test_the_first_deploy_says_what_serves(site):
    version = site.run("git", "describe", "--always").stdout.strip()
    assert site.said.splitlines()[-1] == f"{site.name} serves app {version}, nginx {version}"
    status = site.make("swarm-status").stdout
    assert f"app: 2 of 2 run {version}" in status
    assert f"nginx: 1 of 1 run {version}" in status


def test_a_release_leaves_nginx_alone_and_loses_nothing_nor_does_the_way_back(site):
    before = site.run("git", "describe", "--always").stdout.strip()
    with (site.folder / "app/webapp/pages.py").open("a") as file:
        file.write("# Two\n")
    assert "changes that are not committed" in refused(site)
    version = site.commit("Two")
    nginx = site.ids("nginx")
    with Load(site, pause=0.02) as load:
        said = site.make("swarm-deploy").stdout
        load.carry_on(1000)
    assert load.failed == [], load.summary
    assert said.splitlines()[-1] == f"{site.name} serves app {version}, nginx {before}"
    assert {result.version for result in load.results} == {before, version}
    assert {result.version for result in load.results[-50:]} == {version}
    with Load(site, pause=0.02) as load:
        said = site.make("swarm-rollback").stdout
        load.carry_on(1000)
    assert load.failed == [], load.summary
    assert said.splitlines()[0] == f"app {version} -> {before}"
    assert {result.version for result in load.results[-50:]} == {before}
    assert site.ids("nginx") == nginx
    # To what was just left, that would be.
    again = site.make("swarm-rollback", check=False)
    assert "error: app: rolled back already" in again.stderr
    assert site.ids("nginx") == nginx


def test_a_disk_full_of_logs_stops_nothing(site, machine):
    """Requests and health go on; with space again, lines are written again."""
    node, tasks = f"{machine.name}-node1", site.ids("app") | site.ids("nginx")

    def full() -> bool:
        """What ended before may still be removed, and leave space."""
        docker("exec", node, "sh", "-c", f"cat /dev/zero >>{LOGS}/filler 2>/dev/null", check=False)
        return docker("exec", node, "df", "--output=avail", LOGS).split()[-1] == "0"

    def logged(number: int) -> bool:
        # Not by `docker logs`, which stops at the line that was cut short (docs/faults.md).
        count = f"cat {LOGS}/*/*-json.log | grep --count 'load={number}\\b'"
        return docker("exec", node, "sh", "-c", count, check=False) != "0"

    with Load(site, pause=0.02) as load:
        wait_until(full, 10, "a full disk")
        begin = time.monotonic()
        # Several health checks, each 5 s after the last.
        wait_until(lambda: load.good_since(begin + 20), 40, "answers for 20 s")
        docker("exec", node, "rm", f"{LOGS}/filler")
        load.carry_on(len(load.results) + 100)
        kept = load.results[-1].number
    assert load.failed == [], load.summary
    assert site.ids("app") | site.ids("nginx") == tasks
    wait_until(lambda: logged(kept), 10, "a line again")


def test_what_is_missing_or_wrong_is_said(site):
    assert "IMAGES: 'a/B' begins no name of an image -> write lower " in refused(site, IMAGES="a/B")
    assert "'latest' is no version" in refused(site, APP_VERSION="latest")
    assert "DEPLOY_TIMEOUT: 'soon'" in refused(site, DEPLOY_TIMEOUT="soon")
    assert "error: docker-stack.yml: " in refused(site, UPDATE_MONITOR="long")
    assert "'on' is neither true nor false" in refused(site, OVERLAY_ENCRYPTION="on")
    said = refused(site, IMAGES="registry.invalid/site", SBOM="true")
    assert "SBOM=true needs a registry in IMAGES, Compose 2.39, and an engine that keeps" in said
    assert "was made otherwise -> make swarm-undeploy" in refused(site, OVERLAY_ENCRYPTION="true")
    assert "made on the engine's machine only" in refused(site, CERTIFICATES="")
    certificate = site.folder / "certificates/fullchain.pem"
    good = certificate.read_text()
    certificate.unlink()
    certificate.symlink_to("../archive/fullchain1.pem")
    line = "certificates/fullchain.pem cannot be read (No such file or directory) -> docs/certif"
    assert line in refused(site)
    assert certificate.is_symlink()
    certificate.unlink()
    certificate.write_text("")
    assert "fullchain.pem is empty, and Swarm has no empty secrets -> docs/" in refused(site)
    certificate.write_text(good)
    (site.folder / "secrets/secret_key_fallbacks").write_text("")
    said = refused(site)
    assert "Swarm has no empty secrets -> echo > secrets/secret_key_fallbacks" in said
    (site.folder / "secrets/secret_key_fallbacks").write_text("\n")
    key = site.folder / "secrets/secret_key"
    key.rename(site.folder / "key")
    assert "is deployed with a key that is not here" in refused(site)
    # As another clone makes one.
    site.make("secrets")
    assert "is deployed with a key that is not here" in refused(site)
    (site.folder / "key").rename(key)


def test_nginx_is_not_stopped_for_one_that_would_not_start(site):
    before = site.ids("nginx")
    pem = site.folder / "certificates/fullchain.pem"
    good = pem.read_text()
    pem.write_text("no certificate")
    for settings in ({}, {"SERVER_NAME": "a_b.example"}, {"RATE_LIMIT": "many"}):
        answer = site.make("swarm-deploy", check=False, **settings)
        assert "error: nginx would not start" in answer.stderr
        pem.write_text(good)
    assert site.ids("nginx") == before


def test_fallback_images_are_refused_unless_asked_for(site, stack):
    if not stands_in(stack):
        pytest.skip("the base images come from a registry")
    said = refused(site, BASE_IMAGES="auto")
    assert "is built on the fallback image fallback/python" in said
    assert "make swarm-deploy APP_VERSION=NEW-NAME where a registry " in said
    assert "make swarm-deploy BASE_IMAGES=debian" in said


def test_an_addon_that_cannot_be_had_is_refused_before_anything_is_built(site, machine):
    """With files of the test's own, in a folder that an add-on of that name would have."""
    folder = site.folder / "logstash"
    folder.mkdir(exist_ok=True)
    image = "localhost:1/nowhere:1.0"
    (folder / "Dockerfile").write_text(f"ARG NOWHERE_IMAGE={image}\nFROM ${{NOWHERE_IMAGE}}\n")
    overlay = folder / "docker-compose.yml"
    too_much = "labels: {needs-memory: its limit}, mem_limit: 9000g"
    overlay.write_text(f"services: {{nowhere: {{build: logstash, {too_much}}}}}\n")
    (folder / "docker-stack.yml").write_text("services: {nowhere: {image: nowhere}}\n")
    assert "GB of memory, 9.66e+03 GB are needed" in refused(site, WITH="logging")
    label = ("node", "ls", "--quiet", "--filter", "node.label=logging=true")
    assert machine.on("node1", *label) == ""
    overlay.write_text("services: {nowhere: {build: logstash}}\n")
    kinds = (["images", "--all", "--quiet"], ["ps", "--quiet"], ["secret", "ls", "--quiet"])
    before = [machine.on("node1", *kind) for kind in kinds]
    said = refused(site, WITH="logging", APP_VERSION="refused")
    site.run("git", "checkout", "--quiet", "--", ".")
    site.run("git", "clean", "--quiet", "--force", "-d", "logstash")
    assert said.startswith(f"error: nowhere cannot run here: {image} is out of reach")
    assert [machine.on("node1", *kind) for kind in kinds] == before


def test_plain_docker_says_which_variable_is_missing(site):
    command = ["docker", "stack", "config", "--compose-file", "docker-stack.yml"]
    given = {}
    for _ in range(10):
        answer = site.run(*command, check=False, **given)
        if not answer.returncode:
            break
        missing = answer.stderr.partition("required variable ")[2].split()[0]
        given[missing] = "v1"
    assert given.keys() == {
        "APP_VERSION",
        "NGINX_VERSION",
        "SECRET_KEY_HASH",
        "SECRET_KEY_FALLBACKS_HASH",
        "CERTIFICATE_HASH",
        "CERTIFICATE_KEY_HASH",
        "CERTIFICATES",
    }


def test_what_the_running_tasks_are_denied(site, machine):
    """What Swarm made of the stack file, as the engine says of the containers."""
    listed = machine.on("node1", "ps", "--quiet").split()
    assert len(listed) == 3
    for container in json.loads(machine.on("node1", "inspect", *listed)):
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"]
        assert host["PidsLimit"]
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
        assert container["Config"]["User"] not in ("", "root", "0")
        find = ["find", "/", "-xdev", "-type", "f", "-perm", "/6000"]
        assert machine.on("node1", "exec", container["Id"], *find, check=False) == ""


@pytest.mark.parametrize("service", ["app", "nginx"])
def test_tasks_have_time_to_stop(site, service):
    periods = {task["Spec"]["ContainerSpec"]["StopGracePeriod"] for task in site.tasks(service)}
    assert periods == {40_000_000_000}


def test_a_self_signed_pair_is_made_once(stack):
    """Where the engine is on this machine, and CERTIFICATES names no folder."""
    image = stack.inspect("nginx")[0]["Config"]["Image"]
    call = f"secrets.make_certificate('secrets/self-signed', '{image}', 'localhost,Example.org')"
    pem = stack.folder / "secrets/self-signed/fullchain.pem"
    made = []
    for _ in range(2):
        stack.run("python3", "-c", f"from scripts.swarm import secrets; {call}")
        made.append(pem.read_text())
    assert made[0] == made[1]
    names = stack.run("openssl", "x509", "-in", str(pem), "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:localhost" in names
    assert "DNS:example.org" in names


def test_undeploy_leaves_nothing(site, machine):
    site.make("swarm-undeploy")
    ours = ("--quiet", "--filter", f"label=com.docker.stack.namespace={site.name}")
    for kind in ("service", "network", "secret"):
        assert machine.on("node1", kind, "ls", *ours) == ""
    # The node removes what has ended a moment later.
    wait_until(lambda: not machine.on("node1", "ps", "--all", *ours), 20, "no container")
    assert site.make("swarm-undeploy").stdout.splitlines()[-1] == f"{site.name} is not deployed"
    answer = site.make("swarm-status", check=False)
    assert answer.returncode
    assert f"error: {site.name} is not deployed -> make swarm-deploy" in answer.stderr
