"""Building the images of docker-compose.yml, for `make up`, `release` and `swarm-deploy`."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from scripts import compose
from scripts.compose import ROOT, run
from scripts.messages import fail


def environment(base_images: str = "") -> dict[str, str]:
    """What `docker compose build` is told: base images, version, certificates to trust.

    base_images: auto, registry or debian (.env.example); empty for what is set there. Ends where a
    service that is not optional has no base image.
    """
    values = base_images_in_use(base_images)
    for service, image in without_image(values).items():
        if not is_optional(service):
            fail(*out_of_reach(service, image))
    values["APP_VERSION"] = compose.setting("APP_VERSION") or name() or "unversioned"
    values["APP_COMMIT"] = compose.setting("APP_COMMIT") or git_commit() or "unknown"
    # Certificates this machine was told to trust: a TLS-inspecting proxy's, most likely.
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if any(Path("/usr/local/share/ca-certificates").glob("*.crt")) and bundle.exists():
        values["CA_CERTIFICATES"] = compose.setting("CA_CERTIFICATES") or str(bundle)
    return values


def base_images_in_use(choice: str) -> dict[str, str]:
    """The images to build on by their variables, where those are not what the Dockerfiles name."""
    script = "images/base-images.sh"
    if not (ROOT / script).exists():
        # Deleted, where a registry is always in reach (docs/fork.md).
        return {}
    images = subprocess.run(  # noqa: S603 (no shell, our own words)
        ["bash", script, *compose.dockerfiles().values()],  # noqa: S607
        cwd=ROOT,
        env={**os.environ, "BASE_IMAGES": choice or compose.setting("BASE_IMAGES") or "auto"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if images.returncode:
        sys.exit(1)
    return dict(line.split("=", 1) for line in images.stdout.splitlines())


def out_of_reach(service: str, image: str) -> tuple[str, str]:
    """What is said of a service that the others cannot do without, and what to type."""
    return (
        f"{service} cannot run here: {image} is out of reach and has no fallback image",
        "docs/no-registry.md; to do without its add-on, leave it out of WITH=",
    )


def without_image(environment: dict[str, str]) -> dict[str, str]:
    """The services whose base image is out of reach and has no fallback image, and that image."""
    return {
        service: image
        for service, images in compose.base_images().items()
        for variable, image in images.items()
        if environment.get(variable) == ""
    }


def is_optional(service: str) -> bool:
    """May the others run without it? A label says so: `config` gives no extension of a service."""
    return "optional" in compose.config()["services"][service].get("labels", {})


def git_version() -> str:
    """What git calls what is here, with -dirty for what is not committed; empty without git."""
    return run("git", "describe", "--tags", "--always", "--dirty").stdout.strip()


def name() -> str:
    """The same, with a hash of what is not committed in the application: no two share a name."""
    version = git_version()
    if not version:
        return ""
    changes = hashlib.sha256(run("git", "diff", "HEAD", "--binary", "--", "app", text=False).stdout)
    unknown = run("git", "ls-files", "-z", "--others", "--exclude-standard", "--", "app").stdout
    for path in filter(None, unknown.split("\0")):
        file = compose.ROOT / path
        changes.update(os.fsencode(path))
        changes.update(file.read_bytes() if file.is_file() else b"")
    if changes.digest() == hashlib.sha256().digest():
        return version
    return f"{version.removesuffix('-dirty')}-dirty-{changes.hexdigest()[:8]}"


def git_commit() -> str:
    return run("git", "rev-parse", "HEAD").stdout.strip()
