"""The stack files, read and tried before anything is handed to Swarm."""

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

from scripts import limits
from scripts.compose import ROOT, last_error_line, run
from scripts.messages import fail, show_log
from scripts.swarm import cluster

STACK_FILE = "docker-stack.yml"
ENCRYPTED = "docker-stack.encrypted.yml"


def require_limits(files: list[str], variables: dict[str, str]) -> None:
    """With the stack's own sizes; what is not known yet, such as images' tags, does not matter."""
    texts = (Path(ROOT, file).read_text(encoding="utf-8") for file in files)
    environment = os.environ | variables
    for name in {name for text in texts for name in re.findall(r"\$\{(\w+):\?", text)}:
        environment[name] = environment.get(name) or "unknown"
    named = [f"--file={file}" for file in files]
    command = ["docker", "compose", *named, "config", "--format=json"]
    answer = run(*command, env=environment)
    if answer.returncode:
        fail(f"{' '.join(files)}: {last_error_line(answer)}", "correct .env")
    if found := limits.problem(json.loads(answer.stdout), in_swarm=True):
        fail(*found)


def services_in(*files: str) -> set[str]:
    """The names of the services in these stack files."""
    named = [f"--file={file}" for file in files]
    answer = run("docker", "compose", *named, "config", "--no-interpolate", "--services")
    if answer.returncode:
        fail(f"{' '.join(files)}: {last_error_line(answer)}", "fix that")
    return set(answer.stdout.split())


def stack_files(variables: dict[str, str]) -> list[str]:
    encryption = variables.get("OVERLAY_ENCRYPTION") or "false"
    if encryption not in ("true", "false"):
        fail(f"OVERLAY_ENCRYPTION: {encryption!r} is neither true nor false", "fix .env")
    network = f"{cluster.stack_name()}_backend"
    options = run("docker", "network", "inspect", "--format", "{{json .Options}}", network)
    if not options.returncode and ('"encrypted"' in options.stdout) != (encryption == "true"):
        # Swarm would leave it as it is, without a word.
        fail(
            f"OVERLAY_ENCRYPTION={encryption}, but the network {network} was made otherwise",
            "make swarm-undeploy && make swarm-deploy",
        )
    return [STACK_FILE, *([ENCRYPTED] if encryption == "true" else [])]


def check_nginx(variables: dict[str, str]) -> None:
    """Let the image try whether it starts with these settings and this certificate.

    Swarm stops the old nginx first, which on a single node is the only one.
    """
    command = ["docker", "compose", f"--file={STACK_FILE}", "config", "--format=json"]
    answer = run(*command, env={**os.environ, **variables})
    if answer.returncode:
        fail(f"{STACK_FILE}: {last_error_line(answer)}", "fix .env")
    stack = json.loads(answer.stdout)
    nginx = stack["services"]["nginx"]
    settings = [f"--env={name}={value}" for name, value in nginx["environment"].items()]
    test = ["nginx", "-e", "stderr", "-t", "-q"]
    create = ["docker", "create", "--network=none", *settings, nginx["image"], *test]
    container = run(*create).stdout.strip()
    try:
        for secret in nginx["secrets"]:
            file = (ROOT / stack["secrets"][secret["source"]]["file"]).read_bytes()
            put = ["docker", "cp", "-", f"{container}:/"]
            subprocess.run(put, input=archive(secret["target"], file), check=True)  # noqa: S603
        answer = run("docker", "start", "--attach", container)
    finally:
        run("docker", "rm", "--force", container)
    if answer.returncode:
        show_log(answer.stdout + answer.stderr)
        fail("nginx would not start, its last words are above", "fix that, then: make swarm-deploy")


def archive(path: str, content: bytes) -> bytes:
    """The file as a tar, for nginx's user alone, as docker-stack.yml has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size, member.uid, member.mode = len(content), 101, 0o400
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
