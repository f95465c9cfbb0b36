"""A Docker Swarm on machines of its own: containers on this one, each with its own engine.

Not on this machine's engine, because one that leaves a Swarm forgets the names of all running
containers, and other people's stacks would break (seen with 28.5.2; moby, libnetwork/controller.go,
clusterAgentInit: cleanupServiceDiscovery("")).
"""

import json
import ssl
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clone import Clone, free_ports, wait_until

# Outside Docker's default address pools: the nodes' engines use those, and would rewrite the
# packets of their overlay networks.
SUBNET = "192.168.240.0/24"
REGISTRY, BALANCER = "192.168.240.10", "192.168.240.20"
NODES = {f"node{number}": f"192.168.240.{10 + number}" for number in (1, 2, 3)}


def docker(*words: str, check: bool = True) -> str:
    """Of this machine's own engine."""
    answer = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if check and answer.returncode:
        raise AssertionError(f"docker {' '.join(words)}: {answer.stdout}\n{answer.stderr}")
    return answer.stdout.strip()


class Swarm:
    """Managers that all run tasks; `image`: that of tests/stack/node.

    Several have a registry beside them, from which they pull, and a TCP load balancer (HAProxy)
    that checks whether a node's nginx is well.
    """

    def __init__(self, name: str, image: str, nodes: int):
        self.name, self.image = name, image
        self.nodes = {node: NODES[node] for node in list(NODES)[:nodes]}
        self.registry_port, self.balancer_port, self.port = free_ports(3)
        self.host = f"tcp://{NODES['node1']}:2375"

    def start(self) -> None:
        docker("network", "create", "--subnet", SUBNET, self.name)
        for node, address in self.nodes.items():
            publish = [f"--publish=127.0.0.1:{self.port}:443"] if node == "node1" else []
            self.run(
                node,
                address,
                options=[
                    *("--privileged", "--volume=/var/lib/docker", "--volume=/var/lib/containerd"),
                    f"--env=REGISTRY_ADDRESS={REGISTRY}",
                    f"--env=REGISTRY_PORT={self.registry_port}",
                    *publish,
                ],
            )
        for node in self.nodes:
            self.wait_for_engine(node)

    def join(self) -> None:
        """Make them one Swarm."""
        self.run(
            "registry",
            REGISTRY,
            *("docker-registry", "serve", "/registry.yml"),
            options=[f"--publish=127.0.0.1:{self.registry_port}:5000"],
        )
        self.on("node1", "swarm", "init", f"--advertise-addr={NODES['node1']}")
        token = self.on("node1", "swarm", "join-token", "--quiet", "manager")
        for node in ("node2", "node3"):
            self.on(node, "swarm", "join", "--token", token, f"{NODES['node1']}:2377")
        self.start_balancer()

    def run(self, name: str, address: str, *command: str, options: list[str]) -> None:
        docker(
            *("run", "--detach", f"--name={self.name}-{name}", f"--hostname={name}"),
            *(f"--network={self.name}", f"--ip={address}", *options, self.image, *command),
        )

    def start_balancer(self) -> None:
        """A node is asked twice a second, as a client, and left out after two bad answers."""
        servers = "".join(
            f"  server {node} {address}:443 check check-ssl verify none check-sni localhost"
            " inter 500ms fall 2 rise 2\n"
            for node, address in NODES.items()
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
            BALANCER,
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
        docker("kill", f"{self.name}-{node}")

    def start_again(self, node: str) -> None:
        docker("start", f"{self.name}-{node}")
        self.wait_for_engine(node)

    def ready_nodes(self, node: str = "node2") -> int:
        return self.on(node, "node", "ls", "--format={{.Status}}", check=False).count("Ready")

    @property
    def images(self) -> str:
        """What the names of images in the registry begin with, here and on the nodes."""
        return f"127.0.0.1:{self.registry_port}/site"

    def load(self, node: str, image: str) -> None:
        """Give a node's engine an image of this machine's."""
        command = f"docker save {image} | docker exec -i {self.name}-{node} docker load"
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
    """A clone whose `make deploy` leads to a Swarm; `host`: a manager's engine, "" for ours."""

    host = ""
    url = ""
    trusted = ""

    def run(self, *command: str, check: bool = True, **environment: str):
        given = {"DOCKER_HOST": self.host} if self.host else {}
        return super().run(*command, check=check, **given | environment)

    def certificate_pair(self) -> str:
        """Put a new self-signed pair for localhost where CERTIFICATES says; return it."""
        folder = self.folder / "certificates"
        folder.mkdir(exist_ok=True)
        self.run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-noenc", "-days", "2", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "certificates/privkey.pem", "-out", "certificates/fullchain.pem"),
        )
        pem = (folder / "fullchain.pem").read_text()
        self.trusted += pem
        return pem

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
def machines(stack: Clone, number: int) -> Iterator[Swarm]:
    """So many machines with an engine each, not joined yet."""
    with stack.image(Path(__file__).parent / "stack/node") as image:
        swarm = Swarm(f"{stack.name}-swarm", image, number)
        try:
            swarm.start()
            yield swarm
        finally:
            swarm.remove()
