"""`make swarm-status`"""

import sys

from scripts.compose import run
from scripts.messages import fail, say
from scripts.swarm import cluster, convergence


def main() -> None:
    """What runs where, in which version, and what failed last. Exit code 1 unless all is well."""
    cluster.require_manager("make ps")
    services = cluster.services()
    states = [convergence.service_state(*item) for item in services.items()]
    if not states:
        fail(f"{cluster.stack_name()} is not deployed", "make swarm-deploy")
    for state in states:
        say(str(state))
        for task in state.failures[:3]:
            say(f"  failed at {task['UpdatedAt'][:19]}: {convergence.reason(task)}")
    columns = "table {{.Name}}\t{{.Image}}\t{{.Node}}\t{{.CurrentState}}\t{{.Error}}"
    tasks = ["docker", "stack", "ps", "--filter", "desired-state=running", "--format", columns]
    say(run(*tasks, cluster.stack_name()).stdout.rstrip())
    for name, service in services.items():
        if pages := page_addresses(service):
            say(f"{name}: {pages}")
    sys.exit(0 if all(state.settled for state in states) else 1)


def page_addresses(service: dict) -> str:
    """How a person sees the pages of a service that has some, at the ports in its label ui-port.

    They are on the bridge between the node and its tasks, which nobody else can reach.
    """
    ports = service["Spec"]["Labels"].get("ui-port", "").split()
    running = [task for task in cluster.tasks(service) if task["Status"]["State"] == "running"]
    if not ports or not running:
        return ""
    format_ = "{{.Description.Hostname}}"
    node = run("docker", "node", "inspect", "--format", format_, running[0]["NodeID"])
    container = running[0]["Status"]["ContainerStatus"]["ContainerID"]
    format_ = f'{{{{(index .Containers "{container}").IPv4Address}}}}'
    bridge = run("docker", "network", "inspect", "--format", format_, "docker_gwbridge")
    name, address = node.stdout.strip(), bridge.stdout.partition("/")[0].strip()
    if not address:
        return f"on {name}; typed there, make swarm-status says how to see it"
    urls = " ".join(f"http://{address}:{port}" for port in ports)
    tunnels = " ".join(f"-L {port}:{address}:{port}" for port in ports)
    return f"{urls} on {name}, or: ssh {tunnels} {name}"
