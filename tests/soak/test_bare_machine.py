"""The README on a machine that has nothing: a fresh Debian, no Docker, no registry needed.

The machine is a privileged container with its own engine. Two to four minutes each.
"""

import io
import subprocess
import tarfile
import uuid

import pytest
from clone import ROOT, project_files

# Outside Docker's default address pools, which the inner engine uses.
SUBNET = "192.168.240.0/24"


def docker(*words: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    command = ["docker", *words]
    answer = subprocess.run(command, capture_output=True, check=False, **options)
    assert answer.returncode == 0 or not check, answer.stdout[-2000:] + answer.stderr[-4000:]
    return answer


def debian(release: str) -> bytes:
    """The release's smallest root file system with what the README asks for, as a tar."""
    script = """
        . images/debian.sh
        packages=ca-certificates,git,make,python3,python3-venv
        mmdebstrap --quiet --variant=minbase --include=$packages \
          --aptopt='Acquire::Check-Valid-Until "false"' \
          --customize-hook='cp -r /usr/local/share/ca-certificates "$1/usr/local/share/"' \
          --customize-hook='chroot "$1" update-ca-certificates' "$0" - "$(debian_mirror)"
    """
    command = ["bash", "-c", script, release]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout


def archive() -> bytes:
    """The project as `git archive` would give it, uncommitted changes included."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in project_files():
            tar.add(ROOT / file, arcname=str(file))
    return buffer.getvalue()


@pytest.fixture(params=["bookworm", "trixie", "forky"])
def machine(request):
    """A running bare machine: a function that runs a shell command in the project's folder."""
    name = f"bare-{request.param}-{uuid.uuid4().hex[:8]}"
    image = docker("import", "-", name, input=debian(request.param)).stdout.decode().strip()
    docker("network", "create", "--subnet", SUBNET, name)
    try:
        docker(
            *("run", "--detach", "--privileged", "--name", name, "--hostname", "bare"),
            *("--network", name, "--volume", "/var/lib/docker", "--volume", "/var/lib/containerd"),
            *("--workdir", "/srv/project", image, "sleep", "infinity"),
        )
        docker("cp", "-", f"{name}:/srv/project", input=archive())

        def shell(command: str, check: bool = True) -> subprocess.CompletedProcess:
            return docker("exec", name, "sh", "-c", command, check=check)

        shell("apt-get update")
        yield shell
    finally:
        docker("rm", "--force", "--volumes", name, check=False)
        docker("network", "rm", name, check=False)
        docker("rmi", image, check=False)


def test_make_up_does_everything(machine):
    assert machine("command -v docker", check=False).returncode
    address = machine("make up").stdout.decode().splitlines()[-1]
    page = machine(
        "python3 -c 'import ssl, urllib.request as u;"
        f'print(u.urlopen("{address}", context=ssl._create_unverified_context()).read().decode())\''
    )
    assert b"</html>" in page.stdout
    # And once more, with nothing to set up.
    assert machine("make up").stdout.decode().splitlines()[-1] == address
    machine("make clean")
