"""`make swarm-deploy WITH=monitoring` on a Swarm of one node (tests/nodes.py)."""

import json
import re

import containment
import pytest
from clone import ROOT, wait_until
from conftest import Addon, shorten
from nodes import Deployment, base_image, docker, machines, stands_in

CORE = ("app", "nginx")
ADDON = (*("alertmanager", "blackbox-exporter", "monitoring-proxy", "node-exporter", "prometheus"),)


def base_images(stack) -> list[str]:
    """Those of the add-on, made present on this machine."""
    files = sorted(ROOT.glob("prometheus/*/Dockerfile"))
    text = "\n".join(file.read_text() for file in files)
    pinned = dict(re.findall(r"^ARG (\w+_IMAGE)=(.+)$", text, re.MULTILINE))
    names = [str(file.relative_to(ROOT)) for file in files]
    fallback_images = stack.run("bash", "images/base-images.sh", *names).stdout.split()
    found = pinned | dict(line.split("=") for line in fallback_images)
    # Grafana's may be out of reach.
    return [image for image in found.values() if image]


@pytest.fixture(scope="module")
def machine(stack):
    """Two machines; the first has the core's images, and what all are built on."""
    with machines(stack, 2) as machines_:
        core = [f"{stack.name}-{service}" for service in CORE]
        bases = [base_image(stack, service) for service in CORE]
        machines_.load("node1", *core, *bases, *base_images(stack))
        yield machines_


@pytest.fixture(scope="module")
def site(stack, machine, tmp_path_factory):
    """A clone with a history, deployed there once with the add-on."""
    site = Deployment(
        tmp_path_factory.mktemp("clone") / "site",
        machine,
        APP_REPLICAS="3",
        UPDATE_MONITOR="5s",
        BASE_IMAGES="debian" if stands_in(stack) else "registry",
    )
    shorten(site)
    site.run("git", "init", "--quiet")
    site.version = site.commit("One")
    for service in CORE:
        image = f"{site.name}/{service}:{site.version}"
        machine.on("node1", "tag", f"{stack.name}-{service}", image)
    choose_a_node(site, machine)
    site.said = site.make("swarm-deploy", "WITH=monitoring").stdout
    return site


def choose_a_node(site, machine) -> None:
    """Of two nodes one has to be chosen. Afterwards there is one."""
    address = machine.addresses["node1"]
    machine.on("node1", "swarm", "init", f"--advertise-addr={address}")
    token = machine.on("node1", "swarm", "join-token", "--quiet", "worker")
    machine.on("node2", "swarm", "join", "--token", token, f"{address}:2377")
    said = site.make("swarm-deploy", "WITH=monitoring", check=False).stderr
    assert "error: none of the 2 nodes has the label monitoring=true" in said
    assert "-> docker node update --label-add monitoring=true node1\n" in said
    for node in machine.nodes:
        machine.on("node1", "node", "update", "--label-add=monitoring=true", node)
    said = site.make("swarm-deploy", "WITH=monitoring", check=False).stderr
    assert "error: 2 nodes have the label monitoring=true" in said
    for node in machine.nodes:
        machine.on("node1", "node", "update", "--label-rm=monitoring", node)
    machine.on("node2", "swarm", "leave")
    machine.on("node1", "node", "rm", "--force", "node2")


class AddonInSwarm(Addon):
    """Asked on the node, under the addresses that `make swarm-status` says."""

    def __init__(self, site, machine):
        self.node = f"{machine.name}-node1"
        said = site.make("swarm-status", check=False).stdout
        (pages,) = re.findall(r"^monitoring-proxy: (http://.+) on node1, or: ssh ", said, re.M)
        ports = {"3000": "grafana", "9090": "prometheus", "9093": "alertmanager"}
        self.addresses = {ports[url.rpartition(":")[2]]: url for url in pages.split()}
        self.password = (site.folder / "secrets/monitoring_password").read_text().strip()

    def get(self, service: str, path: str, **query: str) -> list | dict:
        words = [f"--data-urlencode={name}={value}" for name, value in query.items()]
        address = f"{self.addresses[service]}{path}"
        user = f"--user=admin:{self.password}"
        return json.loads(docker("exec", self.node, "curl", "-sfG", user, *words, address))

    def query(self, expression: str) -> list[dict]:
        return self.get("prometheus", "/api/v1/query", query=expression)["data"]["result"]


@pytest.fixture
def addon(site, machine):
    return AddonInSwarm(site, machine)


def ids(site) -> dict[str, set[str]]:
    return {service: site.ids(service) for service in (*CORE, *ADDON)}


def changed(before: dict, after: dict) -> set[str]:
    return {service for service in before if before[service] != after[service]}


def test_the_addon_is_deployed_beside_the_core(site):
    *_, core, beside = site.said.splitlines()
    assert core == f"{site.name} serves app {site.version}, nginx {site.version}"
    for name in ADDON:
        assert f"{name} {site.version}" in beside
    assert ("grafana is left out" in site.said) != (f"grafana {site.version}" in beside)


def test_everything_is_asked_every_replica_too(addon):
    text = (ROOT / "prometheus/server/prometheus.yml").read_text()
    jobs = dict.fromkeys(re.findall(r"job_name: (\S+)", text), 1) | {"app": 3}
    del jobs["log-forwarder"]  # of the logging add-on, which is off

    def up() -> dict[str, int]:
        found = addon.query("sum by (job) (up)")
        return {series["metric"]["job"]: int(series["value"][1]) for series in found}

    wait_until(lambda: up() == jobs, 30, "all targets up")
    (node,) = addon.query("node_uname_info")
    assert node["metric"]["nodename"] == "node1"


def test_each_task_reaches_what_is_documented(site, machine):
    """As in Compose, but that node exporters are in `backend`; grafana's image may be away."""
    running = {}
    for service in (*CORE, *ADDON):
        name = f"--filter=label=com.docker.swarm.service.name={site.name}_{service}"
        running[service] = machine.on("node1", "ps", "--quiet", name).split()[0]
    prefix = ("docker", "exec", "--interactive", f"{machine.name}-node1", "docker")
    found = containment.measure(prefix, f"{site.name}/app:{site.version}", running)
    expected = containment.documented("prometheus/README.md")
    del expected["grafana"]
    in_backend = ("nginx", "app", "blackbox-exporter", "prometheus")
    expected["node-exporter"] = expected["blackbox-exporter"] | {"blackbox-exporter 9115"}
    for service in in_backend:
        expected[service] |= {"node-exporter 9100"}
    for service in expected:
        expected[service] -= {"grafana 3000"}
    containment.check(found, expected)


def test_what_the_running_tasks_are_denied(site, machine):
    """What Swarm made of the stack file, as the engine says of the containers."""
    ours = [f"--filter=label=com.docker.swarm.service.name={site.name}_{name}" for name in ADDON]
    listed = [machine.on("node1", "ps", "--quiet", filter_) for filter_ in ours]
    for container in json.loads(machine.on("node1", "inspect", *listed)):
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"]
        assert host["PidsLimit"]
        assert host["NanoCpus"]
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
        assert not host["PortBindings"]
        assert container["Config"]["User"] not in ("", "root", "0")
        find = ["find", "/", "-xdev", "-type", "f", "-perm", "/6000"]
        assert machine.on("node1", "exec", container["Id"], *find, check=False) == ""


def test_a_changed_rule_replaces_prometheus_alone_and_the_addon_stays(site):
    before = ids(site)
    with (site.folder / "prometheus/server/rules/recording.yml").open("a") as file:
        file.write("# Two\n")
    version = site.commit("Two")
    beside = site.make("swarm-deploy").stdout.splitlines()[-1]
    assert f"prometheus {version}" in beside
    assert f"alertmanager {site.version}" in beside
    after = ids(site)
    assert changed(before, after) == {"prometheus"}
    said = site.make("swarm-rollback").stdout
    assert f"prometheus {site.version} serves" in said
    assert changed(after, ids(site)) == {"prometheus"}


def test_only_the_watchdog_fires_and_alertmanager_knows(addon):
    """For longer than the others wait before they fire, in this add-on of the tests."""
    uptime = 'time() - process_start_time_seconds{job="prometheus"}'
    wait_until(lambda: (addon.value(uptime) or 0) > 15, 30, "time")
    assert addon.firing() == {"Watchdog"}
    (alert,) = addon.get("alertmanager", "/api/v2/alerts")
    assert alert["labels"]["alertname"] == "Watchdog"


def test_an_addon_that_fails_leaves_the_core_alone_and_comes_back(site, machine):
    before = ids(site)
    since = AddonInSwarm(site, machine).value("prometheus_tsdb_lowest_timestamp_seconds")
    configuration = site.folder / "prometheus/server/prometheus.yml"
    good = configuration.read_text()
    configuration.write_text("no: configuration")
    site.commit("Three")
    answer = site.make("swarm-deploy", check=False)
    configuration.write_text(good)
    assert answer.returncode
    core = f"app {site.version}, nginx {site.version}"
    assert "error: prometheus: Swarm gave up on it" in answer.stderr
    assert f"; {core} serve all the same -> make swarm-status" in answer.stderr
    # Prometheus' own words.
    assert "field no not found" in answer.stderr
    assert changed(before, ids(site)) == {"prometheus"}
    # The version from before, with its data.
    addon = AddonInSwarm(site, machine)
    assert addon.value("prometheus_tsdb_lowest_timestamp_seconds") == since


def test_it_is_removed_with_its_secrets_when_it_is_not_wanted(site):
    """Also where somebody does not want its folder."""
    site.run("git", "rm", "-rqf", "prometheus")
    site.commit("Four")
    said = site.make("swarm-deploy", check=False).stderr
    gone = "the add-on monitoring is not here: prometheus/docker-stack.yml is missing"
    assert f"error: {gone} -> make swarm-deploy WITH=\n" in said
    listed = ("docker", "secret", "ls", "--format={{.Name}}")
    assert "alert-webhook" in site.run(*listed).stdout
    site.make("swarm-deploy", "WITH=", APP_REPLICAS="1")
    services = site.run("docker", "service", "ls", "--format={{.Name}}").stdout.split()
    assert sorted(services) == [f"{site.name}_{service}" for service in CORE]
    names = site.run(*listed).stdout
    assert "alert-webhook" not in names
    assert "watchdog" not in names
