"""`make clean`: remove what this project generated, and nothing a person wrote."""

import hashlib
import shutil

from scripts import compose, doctor
from scripts.compose import ROOT, last_error_line, run
from scripts.messages import fail, say

# Never .env, and never a folder that CERTIFICATES names.
GENERATED = [
    *(".venv", ".pytest_cache", ".ruff_cache", ".hypothesis", ".coverage", "tests/artifacts"),
    "secrets/self-signed",  # scripts/swarm/secrets.py
]


def main() -> None:
    if run("docker", "info").returncode == 0:
        doctor.require([[doctor.dotenv], [doctor.remembered_addons], [doctor.configuration]])
        down = run("docker", "compose", "down", "--volumes", "--remove-orphans", "--rmi", "local")
        if down.returncode:
            fail(f"docker compose down: {last_error_line(down)}", "make ps")
        remove_rest()
        remove_images()
        remove_fallback_images()
    else:
        say("no Docker engine answers: containers, volumes and images were not looked for")
    for name in GENERATED:
        path = ROOT / name
        if path.is_symlink():
            # A person made it: nothing here makes links.
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    remove_made_secrets()
    say("removed what this project generated; .env and your own secrets and certificates stay")


def remove_rest() -> None:
    """Remove the volumes and networks of add-ons that were switched off before."""
    ours = f"label=com.docker.compose.project={compose.config()['name']}"
    for kind in ("volume", "network"):
        for found in run("docker", kind, "ls", "--quiet", "--filter", ours).stdout.split():
            run("docker", kind, "rm", found)


def remove_images() -> None:
    """Remove what releases and deploys have tagged, and what builds have left without a name.

    Images that somebody built from ours inherit the labels, and have names of their own.
    """
    project = compose.config()["name"]
    ours = f"label=com.docker.compose.project={project}"
    format_ = "{{.Repository}}:{{.Tag}}"
    label = '{{index .Config.Labels "com.docker.compose.service"}}'
    for image in run("docker", "images", "--filter", ours, "--format", format_).stdout.split():
        service = run("docker", "image", "inspect", "--format", label, image).stdout.strip()
        names = (f"{project}-{service}", f"{compose.setting('IMAGES') or project}/{service}")
        if image.rpartition(":")[0] in names:
            run("docker", "rmi", image)
    run("docker", "image", "prune", "--force", "--filter", ours)


def remove_fallback_images() -> None:
    """They serve every clone on this machine: all stay while one has an image from any."""
    format_ = "{{.Repository}}:{{.Tag}}"
    images = run("docker", "images", "--format", format_, "fallback/*").stdout.split()
    uses = [f"label=org.opencontainers.image.base.name={image}" for image in images]
    if not any(run("docker", "images", "--quiet", "--filter", use).stdout for use in uses):
        for image in images:
            run("docker", "rmi", image)


def remove_made_secrets() -> None:
    """Remove the secrets that are still as scripts/secrets.sh made and noted them."""
    notes = ROOT / "secrets/.made"
    if not notes.exists():
        return
    for line in notes.read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        file = ROOT / name
        if file.is_symlink() or not file.exists():
            continue
        if hashlib.sha256(file.read_bytes()).hexdigest() == digest:
            file.unlink()
    notes.unlink()
    if not any(notes.parent.iterdir()) and not notes.parent.is_symlink():
        notes.parent.rmdir()
