"""What makes alerts fire: real faults, each brought about for the length of a `with` block."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import raw
import yaml
from clone import wait_until


@dataclass(frozen=True)
class Cause:
    bring_about: Callable
    # All that fire, the fault's consequences too; people are told of those that none inhibits.
    fires: set[str]
    inhibited: frozenset[str] = frozenset()


@contextmanager
def stopped(addon, service: str) -> Iterator[None]:
    addon.stack.compose("stop", service)
    try:
        yield
    finally:
        addon.stack.start(service)


@contextmanager
def meanwhile(work: Callable[[threading.Event], None], number: int = 1) -> Iterator[None]:
    """So many threads at the same work, until it sees the event at the end of the block."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def asking(addon, path: str, clients: int, method: str = "GET"):
    """As many clients, each asking again as soon as it has its answer."""
    tls = addon.stack.tls()

    def ask(stop: threading.Event) -> None:
        with httpx.Client(base_url=addon.stack.url, verify=tls, timeout=40) as client:
            while not stop.is_set():
                with suppress(httpx.HTTPError):
                    client.request(method, path)

    return meanwhile(ask, clients)


@contextmanager
def draining(addon) -> Iterator[None]:
    addon.stack.execute("app", "touch", "/tmp/draining")  # noqa: S108 (in the container)
    try:
        yield
    finally:
        addon.stack.execute("app", "rm", "/tmp/draining")  # noqa: S108


def dying_workers(addon):
    """A worker is killed whenever the one killed before has a successor."""

    def kill(stop: threading.Event) -> None:
        while not stop.is_set():
            children = addon.stack.children("app")
            if len(children) == 2:
                script = f"import os; os.kill({children[0]}, 9)"
                addon.stack.execute("app", "python", "-c", script, check=False)

    return meanwhile(kill)


@contextmanager
def scaled(addon, number: int) -> Iterator[None]:
    """One after the other, so that each starts soon."""

    def scale(to: int) -> None:
        command = ("up", "--detach", "--no-build", "--no-recreate", "--wait")
        addon.stack.compose(*command, "--scale", f"app={to}", "app")

    try:
        for to in range(2, number + 1):
            scale(to)
        yield
    finally:
        scale(1)


@contextmanager
def held_connections(addon, number: int) -> Iterator[None]:
    """Uploads from one address that never end. The application knows nothing of them."""
    tls = addon.stack.tls()
    upload = b"POST /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"

    def trickle(stop: threading.Event) -> None:
        with raw.connect(addon.stack, tls) as connection:
            connection.sendall(upload)
            while not stop.wait(1):
                connection.sendall(b"x")

    with meanwhile(trickle, number), asking(addon, "/diagnostics/hello", 1):
        yield


@contextmanager
def nonsense(addon) -> Iterator[None]:
    """What is no HTTP that nginx knows, more of it than of anything else. No alert even waits."""

    def send(stop: threading.Event) -> None:
        while not stop.is_set():
            raw.exchange(raw.handshake(addon.stack), b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n")

    share = 'sum(rate(nginx_http_requests_total{status="505"}[10s]))'
    share += " / sum(rate(nginx_http_requests_total[10s]))"
    with meanwhile(send):
        wait_until(lambda: (addon.value(share) or 0) > 0.9, 30, "nonsense to be counted")
        seen = addon.value("vector(time())")
        wait_until(lambda: addon.value("vector(time())") > seen + 3, 10, "the rules to see it")
        assert addon.query('ALERTS{alertname!="Watchdog"}') == []
        yield


@contextmanager
def holding_memory(addon) -> Iterator[None]:
    """A process in the application's container holds most of what is free below the limit."""
    script = """
import sys
sys.path.insert(0, "/app")
from webapp import memory
held = []
while (usage := memory.usage())[0] < 0.93 * usage[1]:
    held.append(b"x" * 2**20)
print("holding", flush=True)
sys.stdin.read()
"""
    (container,) = addon.stack.containers("app")
    command = ("docker", "exec", "--interactive", container, "python", "-c", script)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "holding\n"
        yield
        process.stdin.close()


FOLDER = "/etc/nginx/certificates"


@contextmanager
def certificate_for(addon, days: int) -> Iterator[None]:
    stack = addon.stack
    before = stack.execute("nginx", "cat", f"{FOLDER}/fullchain.pem")

    def put(make: str) -> None:
        stack.execute(
            "nginx", "sh", "-c", f"{make} > /tmp/new && cat /tmp/new > {FOLDER}/fullchain.pem"
        )
        stack.make("reload")

    put(
        f"openssl req -x509 -key {FOLDER}/privkey.pem -subj /CN=localhost -days {days}"
        " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    try:
        yield
    finally:
        put(f"printf %s '{before}'")


@contextmanager
def wrong_rule(addon) -> Iterator[None]:
    """One that joins series of which several have the same labels."""
    rule = "groups: [{name: wrong, rules: [{record: wrong, expr: up + on () up}]}]"
    file = "/tmp/wrong.yml"  # noqa: S108 (in the container)
    addon.stack.execute("prometheus", "sh", "-c", f"echo '{rule}' > {file}")
    addon.stack.compose("kill", "--signal", "HUP", "prometheus")
    try:
        yield
    finally:
        addon.stack.execute("prometheus", "rm", file)
        addon.stack.compose("kill", "--signal", "HUP", "prometheus")


@contextmanager
def deaf_receiver(addon) -> Iterator[None]:
    addon.receiver.status = 500
    try:
        yield
    finally:
        addon.receiver.status = 200


@contextmanager
def full_disk(addon) -> Iterator[None]:
    """A file that leaves four percent of the disk Docker is on; it is reserved and not written."""
    script = """
import os, sys
disk = os.statvfs("/fill")
with open("/fill/file", "wb") as file:
    os.posix_fallocate(file.fileno(), 0, (disk.f_bavail - disk.f_blocks // 25) * disk.f_frsize)
print("full", flush=True)
sys.stdin.read()
"""
    volume, image = f"{addon.stack.name}_fill", addon.stack.inspect("app")[0]["Image"]
    command = ("docker", "run", "--rm", "--interactive", "--user=0", f"--volume={volume}:/fill")
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            (*command, image, "python", "-c", script), stdin=pipe, stdout=pipe, text=True
        ) as process:
            assert process.stdout.readline() == "full\n"
            yield
            process.stdin.close()
    finally:
        addon.stack.run("docker", "volume", "rm", volume)


@contextmanager
def nobody_takes_lines(addon) -> Iterator[None]:
    """The log forwarder connects to a port where nobody listens; few lines may wait."""
    file = addon.stack.folder / "docker-compose.override.yml"
    kept = file.read_text()
    changed = yaml.safe_load(kept)
    volumes = ["few-logs:/var/log/shipping"]
    changed["services"]["app"] = {"environment": {"SHIP_LOGS": "on"}, "volumes": volumes}
    changed["services"]["app-log-forwarder"] = {
        "build": {
            "context": "logstash/forwarder",
            "args": ["PYTHON_IMAGE"],
            "secrets": ["ca_certificates", "pip_config"],
        },
        "user": "10001:10001",
        "environment": {"LOGSTASH_HOST": "localhost"},
        "volumes": volumes,
        "networks": ["backend"],
    }
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=512k,uid=10001,mode=0700"}
    changed["volumes"] = {"few-logs": {"driver_opts": options}}
    file.write_text(yaml.safe_dump(changed))
    try:
        addon.stack.make("up")
        with asking(addon, "/diagnostics/hello", 2):
            yield
    finally:
        file.write_text(kept)
        addon.stack.make("up")
        addon.stack.run("docker", "volume", "rm", f"{addon.stack.name}_few-logs")


BURNS = {
    "ErrorBudgetBurnsFast",
    "ErrorBudgetBurns",
    "ErrorBudgetBurnsSlowly",
    "ErrorBudgetWillNotLast",
}

CAUSES = {
    "an exporter hangs": Cause(
        lambda addon: addon.stack.paused("node-exporter"),
        {"TargetDown"},
    ),
    "the blackbox exporter is stopped": Cause(
        lambda addon: stopped(addon, "blackbox-exporter"),
        {"TargetDown"},
    ),
    "the application is stopped": Cause(
        # Not SiteDown as well: nginx shows the page that it has kept.
        lambda addon: stopped(addon, "app"),
        {"AppMissing"},
    ),
    "a replica hangs": Cause(
        lambda addon: addon.stack.paused("app"),
        {"TargetDown", "ReplicasMissing", "AppMissing"},
    ),
    "nginx is stopped": Cause(
        lambda addon: stopped(addon, "nginx"),
        {"SiteDown", "TargetDown"},
    ),
    "a replica drains": Cause(draining, {"NotReady"}),
    "a leak": Cause(holding_memory, {"MemoryNearLimit"}),
    "a certificate for two days": Cause(
        lambda addon: certificate_for(addon, 2),
        {"CertificateExpires", "CertificateExpiresSoon"},
        frozenset({"CertificateExpiresSoon"}),
    ),
    "a rule that joins the wrong": Cause(wrong_rule, {"RulesFail"}),
}

# Cases of promtool alone: what looks at hours, and what nobody does to a machine that is used.
NOT_MADE_REAL = {
    *("DiskFillsUp", "MachineShortOfMemory", "MetricsNotStored", "SeriesChurn", "TargetMissing"),
}
# In soak_causes.py; as long as the disk is full, others on this machine have little space.
ON_REQUEST = {
    "a scanner sends nonsense": Cause(nonsense, set()),
    "the application fails": Cause(
        lambda addon: asking(addon, "/diagnostics/error", 2),
        {"ManyErrors", "RouteFails", *BURNS},
        frozenset(BURNS - {"ErrorBudgetBurnsFast"}),
    ),
    "a route is slow": Cause(
        lambda addon: asking(addon, "/diagnostics/work?ms=1200", 2),
        {"SlowRoute"},
    ),
    "more requests than threads": Cause(
        lambda addon: asking(addon, "/diagnostics/work?ms=300", 15, "POST"),
        {"ThreadsBusy"},
    ),
    "log lines find no Logstash": Cause(
        nobody_takes_lines,
        {"LogLinesDropped", "LogLinesWait"},
    ),
    "workers die": Cause(dying_workers, {"WorkersRestart"}),
    "one client asks for too much": Cause(
        lambda addon: held_connections(addon, 16),
        {"RequestsRejected"},
    ),
    "the disk is full": Cause(full_disk, {"DiskFull"}),
    "containers come and go": Cause(
        lambda addon: scaled(addon, 4),
        {"ReplicasRestart"},
    ),
    "a certificate for ten days": Cause(
        lambda addon: certificate_for(addon, 10),
        {"CertificateExpiresSoon"},
    ),
    "the receiver does not take them": Cause(deaf_receiver, {"AlertsNotDelivered"}),
}


def check(addon, cause: Cause) -> None:
    """It makes its alerts fire and no others, people are told, and told of its end."""
    wait_until(lambda: addon.firing() == {"Watchdog"}, 60, "quiet")
    before = len(addon.receiver.alerts)
    told = cause.fires - cause.inhibited
    with cause.bring_about(addon):
        wait_until(lambda: addon.firing() - {"Watchdog"} == cause.fires, 60, cause.fires)
        if addon.receiver.status == 200:
            wait_until(lambda: told <= addon.receiver.names("firing", before), 30, "people told")
    wait_until(lambda: told <= addon.receiver.names("resolved", before), 60, "told of its end")
    assert addon.receiver.names("firing", before) == told
    wait_until(lambda: addon.firing() == {"Watchdog"}, 60, "quiet again")
