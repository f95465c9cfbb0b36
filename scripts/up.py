#!/usr/bin/env python3
"""`make up`: from a fresh clone to a stack that serves, in the order below."""

import os
import subprocess
import sys
import time
from pathlib import Path

import compose
import doctor
import rooms
from compose import ROOT, run
from messages import die, say


def main() -> None:
    rooms.remember()
    doctor.require(doctor.BEFORE_ENGINE)
    script("scripts/engine.sh", "if-needed")
    script("scripts/secrets.sh")
    doctor.require(doctor.GROUPS)
    os.environ.update(build_environment())
    start()
    wait_for_nginx()
    say_where()


def script(*command: str) -> None:
    """Run one of the shell scripts; it has said what is wrong when it fails."""
    if subprocess.run(["bash", *command], cwd=ROOT, check=False).returncode:  # noqa: S603, S607
        sys.exit(1)


def build_environment() -> dict[str, str]:
    """What `docker compose build` is told: base images, version, certificates to trust."""
    images = subprocess.run(  # noqa: S603 (no shell, our own words)
        ["bash", "images/base-images.sh", *compose.dockerfiles()],  # noqa: S607
        cwd=ROOT,
        env={**os.environ, "BASE_IMAGES": compose.setting("BASE_IMAGES") or "auto"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if images.returncode:
        sys.exit(1)
    environment = dict(line.split("=", 1) for line in images.stdout.splitlines())
    version = run("git", "describe", "--tags", "--always", "--dirty").stdout.strip()
    environment["APP_VERSION"] = compose.setting("APP_VERSION") or version or "unversioned"
    # Certificates this machine was told to trust: a TLS-inspecting proxy's, most likely.
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if any(Path("/usr/local/share/ca-certificates").glob("*.crt")) and bundle.exists():
        environment["CA_CERTIFICATES"] = compose.setting("CA_CERTIFICATES") or str(bundle)
    return environment


def start() -> None:
    command = ["docker", "compose", "up", "--build", "--detach", "--remove-orphans", "--wait"]
    if subprocess.run([*command, "--wait-timeout", "120"], cwd=ROOT, check=False).returncode:  # noqa: S603
        logs = run("docker", "compose", "logs", "--tail", "5", "--no-log-prefix").stdout
        print(logs, file=sys.stderr)
        die("the stack did not become healthy; its last lines are above", "make ps; make logs")


def wait_for_nginx() -> None:
    """Until nginx has found the application, which may be healthy a second earlier."""
    deadline = time.monotonic() + 20
    while run(
        "docker", "compose", "exec", "--no-TTY", "nginx", "healthcheck", "/application"
    ).returncode:
        if time.monotonic() > deadline:
            die("nginx does not reach the application", "make ps; make logs")
        time.sleep(0.3)


def say_where() -> None:
    nginx = compose.config()["services"]["nginx"]
    port = nginx["environment"]["HTTPS_PORT"]
    suffix = "" if port == "443" else f":{port}"
    for name in nginx["environment"]["SERVER_NAME"].replace(",", " ").split():
        # .example.org takes in its subdomains.
        say(f"https://{name.removeprefix('.')}{suffix}")


if __name__ == "__main__":
    main()
