"""The README on a machine that has nothing: a fresh Debian, no Docker, no registry needed.

The machine is a privileged container with its own engine. Two to four minutes each; three runs
of `make test` take half an hour.
"""

import io
import re
import subprocess
import tarfile
import uuid

import pytest
from clone import ROOT, project_files
from nodes import make_network


def docker(*words: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    command = ["docker", *words]
    answer = subprocess.run(command, capture_output=True, check=False, **options)
    if check and answer.returncode:
        said = (answer.stdout[-30000:] + answer.stderr[-30000:]).decode(errors="replace")
        raise AssertionError(f"{words[-1]} exited with {answer.returncode}:\n{said}")
    return answer


def debian(release: str) -> bytes:
    """The release's smallest root file system, as a tar."""
    script = """
        . scripts/debian.sh
        mmdebstrap --quiet --variant=minbase --include=ca-certificates \
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
    make_network(name)
    try:
        docker(
            *("run", "--detach", "--privileged", "--name", name, "--hostname", "bare"),
            *("--network", name, "--volume", "/var/lib/docker", "--volume", "/var/lib/containerd"),
            *("--workdir", "/project", image, "sleep", "infinity"),
        )
        docker("cp", "-", f"{name}:/project", input=archive())

        def shell(command: str, check: bool = True) -> subprocess.CompletedProcess:
            return docker("exec", name, "sh", "-c", command, check=check)

        # What the README says first.
        line = re.search(
            r"^    (apt-get update .*)$", (ROOT / "README.md").read_text(), re.MULTILINE
        )
        shell(f"DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; {line[1]}")
        yield shell
    finally:
        docker("rm", "--force", "--volumes", name, check=False)
        docker("network", "rm", name, check=False)
        docker("rmi", image, check=False)


PAGE = """
import re, ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
request = urllib.request.Request(sys.argv[1] + "/nowhere", headers={"Accept": "text/html"})
try:
    urllib.request.urlopen(request, context=context)
except urllib.error.HTTPError as error:
    path = re.search(r"/static/error-[0-9a-f]{32}[.]css", error.read().decode())[0]
print(urllib.request.urlopen(sys.argv[1] + path, context=context).status)
"""


def test_make_up_does_everything(machine):
    """Checked with an error page and its style sheet, which a fork keeps when the sample goes."""
    assert machine("command -v docker", check=False).returncode
    (address,) = re.findall(r"^https://\S+$", machine("make up").stdout.decode(), re.MULTILINE)
    assert machine(f"python3 -c '{PAGE}' {address}").stdout == b"200\n"
    # And once more, with nothing to set up.
    assert address in machine("make up").stdout.decode().splitlines()
    machine("make clean")


@pytest.mark.parametrize("machine", ["trixie"], indirect=True)
def test_a_plugin_that_is_missing_is_said_and_added(machine):
    machine("make engine")
    machine("apt-get purge -y docker-compose")
    doctor = machine("make doctor", check=False)
    assert doctor.returncode
    assert b"error: Docker has no `docker compose` -> make engine (as root)" in doctor.stderr
    refused = machine("BOOTSTRAP=0 make engine", check=False)
    assert refused.returncode
    assert b"error: Docker lacks its plugin" in refused.stderr
    machine("make engine")
    machine("docker compose version")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("machine", ["trixie"], indirect=True)
def test_make_test_passes_twice_and_after_make_clean(machine):
    for command in ("make test", "make test", "make clean", "make test"):
        machine(f"CI=true {command}")
