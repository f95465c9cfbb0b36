"""Who reaches whom, tried out from inside each container, and compared with a table of a page.

A container's ports are those on which it listens by its kernel, so none is forgotten. Whether it is
reached under an address is shown by a token from a server that runs in its network: some networks
have a proxy that accepts connections to every address. Two targets are no containers: `this
machine`, under each of its addresses, and `outside`, for which a route counts.
"""

import json
import re
import secrets
import subprocess

from clone import ROOT, Clone, engine

MACHINE, OUTSIDE = "this machine", "outside"
PORT = 47123  # of the servers with the tokens

# Runs in a container's network, and in this machine's. Prints who listens where, serves
# the token (its first argument), and answers a line of targets with a line of results.
PROBE = r"""
import concurrent.futures, fcntl, json, socket, socketserver, struct, sys, threading

TOKEN, PORT = sys.argv[1].encode(), int(sys.argv[2])

def addresses():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, 0x8915, name.encode().ljust(256, b"\0"))  # SIOCGIFADDR
            except OSError:
                continue  # it has none
            if not (address := socket.inet_ntoa(answer[20:24])).startswith("127."):
                yield address

def listening():
    # Addresses are hexadecimal, 0A is a listening socket of TCP, and each of UDP listens.
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in open(f"/proc/net/{kind}").readlines()[1:]:
            address, port = line.split()[1].split(":")
            if kind.startswith("udp") or line.split()[3] == "0A":
                ipv4 = socket.inet_ntoa(struct.pack("=I", int(address[-8:], 16)))
                local = ipv4.startswith("127.") or address.endswith("01000000")
                if not local:
                    yield kind[:3], ipv4, int(port, 16)

class TCP(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

def serve():
    def stream(request, peer, server):
        request.sendall(TOKEN)
    def packet(request, peer, server):
        request[1].sendto(TOKEN, peer)
    for server in (TCP(("", PORT), stream), socketserver.UDPServer(("", PORT), packet)):
        threading.Thread(target=server.serve_forever, daemon=True).start()

def reached(kind, address, token):
    packets = {"tcp": socket.SOCK_STREAM}.get(kind, socket.SOCK_DGRAM)
    icmp = socket.IPPROTO_ICMP if kind == "icmp" else 0
    try:
        with socket.socket(socket.AF_INET, packets, icmp) as probe:
            probe.settimeout(2)
            probe.connect((address, PORT))
            if kind == "route":
                return True
            if kind != "tcp":
                probe.send(struct.pack("!BBHHH", 8, 0, 0, 0, 1))  # an echo request of ICMP
            return kind == "icmp" and bool(probe.recv(100)) or probe.recv(100).decode() == token
    except OSError:
        return False

interfaces = {line.split()[-1] for line in open("/proc/net/if_inet6")} - {"lo"}
print(json.dumps([[*addresses()], [*listening()], sorted(interfaces)]), flush=True)
serve()
print("serves", flush=True)
for line in sys.stdin:
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        results = pool.map(lambda target: reached(*target), json.loads(line))
        print(json.dumps([*results]), flush=True)
"""


class Probe:
    """Runs in the image of the application, with no more rights than its container has."""

    def __init__(self, docker: tuple[str, ...], image: str, network: str):
        self.token = secrets.token_hex(8)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [
                *(*docker, "run", "--rm", "--interactive", f"--network={network}"),
                *("--cap-drop=ALL", "--user=65534", "--entrypoint=python"),
                *(image, "-c", PROBE, self.token, str(PORT)),
            ],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )

    def read(self):
        return json.loads(self.process.stdout.readline())

    def tried(self, targets: list) -> list[bool]:
        self.process.stdin.write(f"{json.dumps(targets)}\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def reach(stack: Clone) -> dict[str, set[str]]:
    """What each service that runs reaches, as `app 8000`, `this machine`, `outside`."""
    label = f"com.docker.compose.project={stack.name}"
    running = {
        one["Labels"]["com.docker.compose.service"]: one["Id"]
        for one in engine().containers(filters={"label": label})
    }
    return measure(("docker",), stack.inspect("app")[0]["Image"], running)


def measure(docker: tuple[str, ...], image: str, running: dict[str, str]) -> dict[str, set[str]]:
    """docker: the command, also one that runs on another machine; running: a container of each."""
    started = {
        service: Probe(docker, image, f"container:{container}")
        for service, container in running.items()
    }
    started[MACHINE] = Probe(docker, image, "host")
    try:
        # It is nobody's (RFC 5737), and no packet leaves: connect() only looks for a route.
        targets = [({OUTSIDE}, ("route", "192.0.2.1", ""))]
        for service, probe in started.items():
            addresses, listening, ipv6 = probe.read()
            assert probe.process.stdout.readline() == "serves\n"
            assert service == MACHINE or not ipv6, f"{service} has IPv6, which is not tried here"
            for address in addresses:
                kinds = ("tcp", "udp", "icmp") if service == MACHINE else ("tcp",)
                ports = {
                    f"{service} {port}" if kind == "tcp" else f"{service} {kind} {port}"
                    for kind, of, port in listening
                    if of in ("0.0.0.0", address)  # noqa: S104
                }
                reached = {MACHINE} if service == MACHINE else ports
                targets += [(reached, (kind, address, probe.token)) for kind in kinds]
        found = {}
        for service in running:
            results = started[service].tried([target for _, target in targets])
            yes = [ports for (ports, _), result in zip(targets, results, strict=True) if result]
            found[service] = {port for ports in yes for port in ports if port.split()[0] != service}
        return found
    finally:
        for probe in started.values():
            probe.end()


def documented(file: str) -> dict[str, set[str]]:
    """The table `service | reaches` of a page."""
    text = (ROOT / file).read_text()
    (table,) = re.findall(
        r"^\| service \| reaches \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    rows = [line.strip("| ").split("|") for line in table.splitlines()]
    return {
        service.strip(): {*re.split(", *", reaches.strip())} - {"", "-"}
        for service, reaches in rows
    }


def check(found: dict[str, set[str]], expected: dict[str, set[str]]) -> None:
    """Every cell is expected; otherwise the whole table is shown."""
    wrong = [
        f"{service} {'reaches' if unexpected else 'does not reach'} {target}"
        for service in sorted(found.keys() | expected.keys())
        for unexpected, targets in (
            (True, found.get(service, set()) - expected.get(service, set())),
            (False, expected.get(service, set()) - found.get(service, set())),
        )
        for target in sorted(targets)
    ]
    table = [f"| {name} | {', '.join(sorted(found[name])) or '-'} |" for name in sorted(found)]
    assert not wrong, "\n".join([*wrong, "", *table])
