"""What the running containers may do, read from the kernel and the engine, not from the file."""

import re

import load
import pytest

SERVICES = {"app": 10001, "nginx": 101}
MB = 1024**2
# nginx's is that of the clients' limits that tests raise.
MEMORY = {"app": 512 * MB, "nginx": int(load.LIMITS["NGINX_MEMORY"].removesuffix("m")) * MB}
PROCESSES = {"app": 512, "nginx": 64}


def status(stack, service: str) -> dict[str, str]:
    """/proc/1/status of the service's container."""
    text = stack.execute(service, "cat", "/proc/1/status")
    return dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize(("service", "uid"), SERVICES.items())
def test_process_has_no_privileges(stack, service, uid):
    process = status(stack, service)
    assert process["Uid"].split() == [str(uid)] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(process[kind], 16) == 0, kind
    assert process["NoNewPrivs"] == "1"
    assert process["Seccomp"] == "2"


@pytest.mark.parametrize("service", SERVICES)
def test_root_file_system_is_read_only(stack, service):
    mounts = stack.execute(service, "cat", "/proc/1/mounts").splitlines()
    root = next(line for line in mounts if line.split()[1] == "/")
    assert "ro" in root.split()[3].split(",")
    refused = stack.compose(
        "exec", "--no-TTY", service, "sh", "-c", "echo > /etc/written", check=False
    )
    assert refused.returncode
    assert "Read-only file system" in refused.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_no_program_raises_privileges(stack, service):
    find = ("find", "/", "-xdev", "-type", "f", "-perm", "/6000")
    assert stack.execute(service, *find, check=False) == ""


@pytest.mark.parametrize("service", SERVICES)
def test_limits_are_in_force(stack, service):
    (container,) = stack.inspect(service)
    host = container["HostConfig"]
    assert host["Memory"] == MEMORY[service]
    assert host["CpuQuota"] == 200_000
    assert host["PidsLimit"] == PROCESSES[service]
    assert host["Tmpfs"]
    assert not [folder for folder, options in host["Tmpfs"].items() if "size=" not in options]
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert not host["Privileged"]
    assert container["Config"]["StopTimeout"] == 40


@pytest.mark.parametrize("service", SERVICES)
def test_memory_limit_is_the_kernels(stack, service):
    # Version 2 of cgroups, or version 1.
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    limit = stack.execute(service, "sh", "-c", f"cat {files} 2>/dev/null", check=False)
    assert int(limit) == MEMORY[service]


def test_only_nginx_publishes_ports(stack):
    published = {
        (service, binding["HostPort"])
        for service in SERVICES
        for container in stack.inspect(service)
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    }
    assert published == {("nginx", str(stack.http_port)), ("nginx", str(stack.https_port))}


def test_application_reaches_nothing_outside(stack):
    """Its network has no gateway; an address of the documentation range stands for the outside."""
    script = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=3)"
    answer = stack.compose("exec", "--no-TTY", "app", "python", "-c", script, check=False)
    assert "Network is unreachable" in answer.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_in_environment_or_image(stack, service):
    secret = (stack.folder / "secrets/secret_key").read_text().strip()
    (container,) = stack.inspect(service)
    history = stack.run("docker", "history", "--no-trunc", container["Image"]).stdout
    assert secret not in str(container)
    assert secret not in history


@pytest.mark.parametrize("service", SERVICES)
def test_image_says_what_it_was_built_on(stack, service):
    (container,) = stack.inspect(service)
    labels = container["Config"]["Labels"]
    base = labels["org.opencontainers.image.base.name"]
    assert (labels.get("base-images") == "debian") == base.startswith("fallback/")
