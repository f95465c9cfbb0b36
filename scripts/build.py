"""Building the images of docker-compose.yml, for `make up`, `make release` and `make deploy`."""

import os
import subprocess
import sys
from pathlib import Path

import compose
from compose import ROOT, run


def environment(base_images: str = "") -> dict[str, str]:
    """What `docker compose build` is told: base images, version, certificates to trust.

    base_images: auto, registry or debian (.env.example); empty for what is set there.
    """
    images = subprocess.run(  # noqa: S603 (no shell, our own words)
        ["bash", "images/base-images.sh", *compose.dockerfiles()],  # noqa: S607
        cwd=ROOT,
        env={
            **os.environ,
            "BASE_IMAGES": base_images or compose.setting("BASE_IMAGES") or "auto",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if images.returncode:
        sys.exit(1)
    values = dict(line.split("=", 1) for line in images.stdout.splitlines())
    values["APP_VERSION"] = compose.setting("APP_VERSION") or git_version() or "unversioned"
    values["APP_COMMIT"] = compose.setting("APP_COMMIT") or git_commit() or "unknown"
    # Certificates this machine was told to trust: a TLS-inspecting proxy's, most likely.
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if any(Path("/usr/local/share/ca-certificates").glob("*.crt")) and bundle.exists():
        values["CA_CERTIFICATES"] = compose.setting("CA_CERTIFICATES") or str(bundle)
    return values


def git_version() -> str:
    """What git calls what is here, with -dirty for what is not committed; empty without git."""
    return run("git", "describe", "--tags", "--always", "--dirty").stdout.strip()


def git_commit() -> str:
    return run("git", "rev-parse", "HEAD").stdout.strip()
