"""The firewall's rules in docs/edge.md, on a router that forwards as Docker does."""

import os
import re
import subprocess
import sys

import pytest
from clone import ROOT

RULES = re.findall(r"^    (iptables .*)$", (ROOT / "docs/edge.md").read_text(), re.M)
ROUTER, CLIENT, SERVER = (f"{name}-{os.getpid()}" for name in ("router", "client", "server"))
SETUP = f"""
for name in {ROUTER} {CLIENT} {SERVER}; do ip netns add $name; done
ip link add visitors netns {ROUTER} type veth peer name eth0 netns {CLIENT}
ip link add docker netns {ROUTER} type veth peer name eth0 netns {SERVER}
ip -n {ROUTER} address add 192.0.2.1/24 dev visitors
ip -n {ROUTER} address add 198.51.100.1/24 dev docker
ip -n {CLIENT} address add 192.0.2.2/24 dev eth0
ip -n {CLIENT} address add 192.0.2.3/24 dev eth0
ip -n {SERVER} address add 198.51.100.2/24 dev eth0
ip -n {ROUTER} link set visitors up
ip -n {ROUTER} link set docker up
ip -n {CLIENT} link set eth0 up
ip -n {SERVER} link set eth0 up
ip -n {SERVER} route add default via 198.51.100.1
in_router="ip netns exec {ROUTER}"
$in_router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
$in_router iptables -t nat -A PREROUTING -p tcp --dport 443 -j DNAT --to 198.51.100.2:8443
$in_router iptables -N DOCKER-USER
$in_router iptables -A FORWARD -j DOCKER-USER
"""
LISTEN = """
import socket
server = socket.create_server(("198.51.100.2", 8443), backlog=4096)
print("listens", flush=True)
held = []
while True:
    held.append(server.accept())
"""
CONNECT = """
import socket, sys
held, refused = [], 0
for _ in range(int(sys.argv[2])):
    try:
        where = ("192.0.2.1", 443)
        held.append(socket.create_connection(where, 0.2, (sys.argv[1], 0)))
    except ConnectionRefusedError:
        refused += 1
    except TimeoutError:
        pass
print(len(held), refused, flush=True)
sys.stdin.read()
"""


def start(name: str, script: str, *arguments: str) -> subprocess.Popen:
    command = ["ip", "netns", "exec", name, sys.executable, "-c", script, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


@pytest.fixture
def _router():
    if os.geteuid():
        pytest.skip("only root can make network namespaces")
    try:
        subprocess.run(["sh", "-ec", SETUP], check=True)
        with start(SERVER, LISTEN) as server:
            server.stdout.readline()
            yield
            server.kill()
    finally:
        for name in (ROUTER, CLIENT, SERVER):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def connected(address: str, number: int) -> list[int]:
    """How many connections are held at once, and how many were refused."""
    with start(CLIENT, CONNECT, address, str(number)) as client:
        counts = [int(word) for word in client.stdout.readline().split()]
        others = start(CLIENT, CONNECT, "192.0.2.3", "20")
        with others:
            assert others.stdout.readline() == "20 0\n", "another client"
            others.stdin.close()
        client.stdin.close()
    return counts


@pytest.mark.usefixtures("_router")
def test_the_firewall_limits_connections_of_one_address():
    assert connected("192.0.2.2", 300)[0] == 300
    assert len(RULES) == 2
    for rule in RULES:
        subprocess.run(["ip", "netns", "exec", ROUTER, *rule.split()], check=True)
    held, refused = connected("192.0.2.2", 260)
    assert 190 <= held <= 200
    assert refused > 0
