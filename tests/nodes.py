"""A Docker Swarm on machines of its own: containers on this one, each with its own engine.

Not on this machine's engine, because one that leaves a Swarm forgets the names of all running
containers, and other people's stacks would break (seen with 28.5.2; moby, libnetwork/controller.go,
clusterAgentInit: cleanupServiceDiscovery("")).
"""

import ipaddress
import json
import ssl
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clone import Clone, free_ports, require, wait_until
from load import LIMITS

# For tests of networks (RFC 2544), and outside Docker's default address pools: the engines of
# machines that are containers use those, and would rewrite the packets of their overlay networks.
SUBNETS = [*ipaddress.ip_network("198.19.0.0/16").subnets(new_prefix=24)]
NODES = ("node1", "node2", "node3")


def docker(*words: str, check: bool = True) -> str:
    """Of this machine's own engine."""
    answer = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if check and answer.returncode:
        raise AssertionError(f"docker {' '.join(words)}: {answer.stdout}\n{answer.stderr}")
    return answer.stdout.strip()


def make_network(name: str) -> ipaddress.IPv4Network:
    """Make a network of this machine's engine with the first subnet that no other one has."""
    for subnet in SUBNETS:
        command = ["docker", "network", "create", "--subnet", str(subnet), name]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if not answer.returncode:
            return subnet
        assert "Pool overlaps" in answer.stderr, answer.stderr
    raise AssertionError("every subnet for tests is taken -> docker network ls")


class Swarm:
    """Managers that all run tasks; `image`: that of tests/stack/node.

    Several have a registry beside them, from which they pull, and a TCP load balancer (HAProxy)
    that checks whether a node's nginx is well.
    """

    def __init__(self, name: str, image: str, nodes: int, options: tuple[str, ...] = ()):
        self.name, self.image, self.options = name, image, options
        self.nodes = NODES[:nodes]
        self.manager = "node1"  # who is asked
        self.registry_port, self.balancer_port, self.port = free_ports(3)

    def start(self) -> None:
        subnet = make_network(self.name)
        names = (*NODES, "registry", "balancer")
        self.addresses = {name: str(subnet[10 + n]) for n, name in enumerate(names)}
        for node in self.nodes:
            publish = [f"--publish=127.0.0.1:{self.port}:443"] if node == "node1" else []
            self.run(
                node,
                options=[
                    *("--privileged", "--volume=/var/lib/docker", "--volume=/var/lib/containerd"),
                    f"--env=REGISTRY_ADDRESS={self.addresses['registry']}",
                    f"--env=REGISTRY_PORT={self.registry_port}",
                    *self.options,
                    *publish,
                ],
            )
        for node in self.nodes:
            self.wait_for_engine(node)

    def start_registry(self) -> None:
        self.run(
            "registry",
            *("docker-registry", "serve", "/registry.yml"),
            options=[f"--publish=127.0.0.1:{self.registry_port}:5000"],
        )

    def join(self) -> None:
        """Make them one Swarm."""
        self.start_registry()
        address = self.addresses["node1"]
        self.on("node1", "swarm", "init", f"--advertise-addr={address}")
        token = self.on("node1", "swarm", "join-token", "--quiet", "manager")
        for node in ("node2", "node3"):
            self.on(node, "swarm", "join", "--token", token, f"{address}:2377")
        self.start_balancer()

    def run(self, name: str, *command: str, options: list[str]) -> None:
        docker(
            *("run", "--detach", f"--name={self.name}-{name}", f"--hostname={name}"),
            *(f"--network={self.name}", f"--ip={self.addresses[name]}"),
            *(*options, self.image, *command),
        )

    def start_balancer(self) -> None:
        """A node is asked twice a second, as a client, and left out after two bad answers."""
        servers = "".join(
            f"  server {node} {self.addresses[node]}:443 check check-ssl verify none"
            " check-sni localhost inter 500ms fall 2 rise 2\n"
            for node in NODES
        )
        configuration = textwrap.dedent("""\
            defaults
              mode tcp
              timeout connect 1s
              timeout client 75s
              timeout server 75s
              retries 3
              option redispatch 1
            frontend https
              bind :443
              default_backend nodes
            backend nodes
              balance roundrobin
              option httpchk
              http-check send meth GET uri / ver HTTP/1.1 hdr Host localhost
        """)
        self.run(
            "balancer",
            *("sh", "-c", 'printf %s "$CONFIGURATION" >/tmp/cfg; exec haproxy -f /tmp/cfg'),
            options=[
                f"--env=CONFIGURATION={configuration}{servers}",
                f"--publish=127.0.0.1:{self.balancer_port}:443",
            ],
        )

    def on(self, node: str, *words: str, check: bool = True) -> str:
        """Run docker on the node."""
        return docker("exec", f"{self.name}-{node}", "docker", *words, check=check)

    def wait_for_engine(self, node: str) -> None:
        wait_until(lambda: self.on(node, "info", "--format={{.ID}}", check=False), 60, node)

    def kill(self, node: str) -> None:
        """Without power it says nothing: killed alone, its kernel would end all connections."""
        docker("network", "disconnect", self.name, f"{self.name}-{node}")
        docker("kill", f"{self.name}-{node}")
        self.manager = next(other for other in self.nodes if other != node)

    def start_again(self, node: str) -> None:
        address = f"--ip={self.addresses[node]}"
        docker("network", "connect", address, self.name, f"{self.name}-{node}")
        docker("start", f"{self.name}-{node}")
        self.wait_for_engine(node)

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"tcp://{self.addresses[self.manager]}:2375"

    def ask(self, *words: str, check: bool = True) -> str:
        """Ask a manager that lives."""
        return self.on(self.manager, *words, check=check)

    def ready_nodes(self) -> int:
        return self.ask("node", "ls", "--format={{.Status}}", check=False).count("Ready")

    def leader(self) -> str:
        """Of the managers; empty while they are choosing one."""
        nodes = self.ask("node", "ls", "--format={{.Hostname}} {{.ManagerStatus}}", check=False)
        return "".join(line.split()[0] for line in nodes.splitlines() if line.endswith(" Leader"))

    def healthy(self, node: str, service: str) -> int:
        """The service's containers that are healthy on a node, by its own engine."""
        service = f"label=com.docker.swarm.service.name={service}"
        return len(
            self.on(node, "ps", "-q", "--filter=health=healthy", f"--filter={service}").split()
        )

    @property
    def images(self) -> str:
        """What the names of images in the registry begin with, here and on the nodes."""
        return f"127.0.0.1:{self.registry_port}/site"

    def load(self, node: str, *images: str) -> None:
        """Give a node's engine images of this machine's."""
        command = f"docker save {' '.join(images)} | docker exec -i {self.name}-{node} docker load"
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)

    def push(self, image: str, name: str) -> None:
        docker("tag", image, f"{self.images}/{name}")
        docker("push", "--quiet", f"{self.images}/{name}")
        docker("rmi", f"{self.images}/{name}")

    def remove(self) -> None:
        for name in (*NODES, "registry", "balancer"):
            docker("rm", "--force", "--volumes", f"{self.name}-{name}", check=False)
        docker("network", "rm", self.name, check=False)


class Deployment(Clone):
    """A clone whose `make swarm-deploy` leads to the first machine of a Swarm; what is deployed."""

    url = ""

    def __init__(self, folder: Path, swarm: Swarm, **settings: str):
        super().__init__(
            folder,
            APP_ENV="testing",
            HTTP_PORT="80",
            HTTPS_PORT="443",
            CERTIFICATES="./certificates",
            # The others would need larger sizes in docker-stack.yml.
            RATE_LIMIT=LIMITS["RATE_LIMIT"],
            RATE_BURST=LIMITS["RATE_BURST"],
            **settings,
        )
        self.swarm, self.url = swarm, f"https://localhost:{swarm.port}"
        self.trusted = ""
        self.certificate_pair()

    def run(self, *command: str, check: bool = True, **environment: str):
        return super().run(*command, check=check, DOCKER_HOST=self.swarm.host, **environment)

    def commit(self, message: str) -> str:
        """Commit everything; the version that this makes."""
        name = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self.run("git", "add", "--all")
        self.run("git", *name, "commit", "--quiet", "--allow-empty", "--message", message)
        return self.run("git", "describe", "--tags", "--always").stdout.strip()

    def ids(self, service: str) -> set[str]:
        return {task["ID"] for task in self.tasks(service)}

    def certificate_pair(self) -> None:
        """Put a new self-signed pair for localhost where CERTIFICATES says, and trust it."""
        folder = self.folder / "certificates"
        folder.mkdir(exist_ok=True)
        self.run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-noenc", "-days", "30", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "certificates/privkey.pem", "-out", "certificates/fullchain.pem"),
        )
        self.trusted += (folder / "fullchain.pem").read_text()

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.trusted)

    def tasks(self, service: str) -> list[dict]:
        """The service's tasks that Swarm wants to run."""
        listed = self.run(
            *("docker", "service", "ps", "--quiet", "--no-trunc"),
            *("--filter=desired-state=running", f"{self.name}_{service}"),
        ).stdout.split()
        return json.loads(self.run("docker", "inspect", "--type=task", *listed).stdout)


class Front:
    """Where clients connect, for tests/load.py."""

    def __init__(self, deployment: Deployment, port: int):
        self.url, self.tls = f"https://localhost:{port}", deployment.tls


def base_image(stack: Clone, service: str) -> str:
    labels = stack.inspect(service)[0]["Config"]["Labels"]
    return labels["org.opencontainers.image.base.name"]


def stands_in(stack: Clone) -> bool:
    return base_image(stack, "app").startswith("fallback/")


@contextmanager
def variant(of: str, *lines: str) -> Iterator[str]:
    """An image made from another by these lines of a Dockerfile."""
    text = "\n".join([f"FROM {of}", *lines])
    command = ["docker", "build", "--quiet", "-"]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    image = answer.stdout.strip()
    try:
        yield image
    finally:
        docker("rmi", image, check=False)


@contextmanager
def machines(stack: Clone, number: int, *options: str) -> Iterator[Swarm]:
    """So many machines with an engine each, not joined yet; with these options of `docker run`."""
    require("docker-stack.yml")
    with stack.image(Path(__file__).parent / "stack/node") as image:
        swarm = Swarm(f"{stack.name}-swarm", image, number, options)
        try:
            swarm.start()
            yield swarm
        finally:
            swarm.remove()
