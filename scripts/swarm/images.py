"""The images of a deploy: built once, pushed, never built or pushed over."""

import os
import re
import subprocess
from collections.abc import Collection

from scripts import build, compose, doctor
from scripts.compose import ROOT, last_error_line, run
from scripts.messages import fail, say
from scripts.swarm import cluster
from scripts.swarm.versions import has_registry, variable_name


def attestations(variables: dict[str, str], *, pushed: bool) -> list[str]:
    """What is attached to an image that is pushed: provenance where that works, an SBOM if wanted.

    mode=min, because max publishes the build's arguments: a proxy's password would be among them.
    https://docs.docker.com/build/metadata/attestations/slsa-provenance/
    """
    asked = {name: variables.get(name) or "" for name in ("PROVENANCE", "SBOM")}
    stores = "io.containerd.snapshotter" in str(compose.engine_info().get("DriverStatus"))
    if pushed and stores and "--provenance" in run("docker", "compose", "build", "--help").stdout:
        asked["PROVENANCE"] = asked["PROVENANCE"] or "mode=min"
        return [f"--{name.lower()}={value}" for name, value in asked.items() if value]
    for name, value in asked.items():
        if value not in ("", "false"):
            fail(
                f"{name}={value} needs a registry in IMAGES, Compose 2.39, and an engine that keeps"
                " images in containerd",
                f"https://docs.docker.com/engine/storage/containerd/, or {name}=false",
            )
    return []


def ensure_images(
    images: dict[str, str], variables: dict[str, str], attached: Collection[str] = ()
) -> list[str]:
    """Make the images present: a version is built once, pushed, and never built or pushed over.

    Where there is a registry, its image is the version, and not what this machine has by that name.
    Gives back the services that have to be left out, because their base image is out of reach.
    """
    fallback_allowed = variables.get("BASE_IMAGES") == "debian"
    pulled = {service for service, image in images.items() if has_registry(image) and pull(image)}
    absent = {
        service
        for service in images.keys() - pulled
        if run("docker", "image", "inspect", images[service]).returncode
    }
    for service in sorted(images.keys() - absent):
        if variables.get("APP_VERSION") or variables.get(variable_name(service, "VERSION")):
            report_existing(images[service])
    if absent:
        doctor.require([[doctor.images]])
    environment = build.environment("debian" if fallback_allowed else "registry") if absent else {}
    left_out = []
    for service, image in images.items():
        if service in absent and not build_image(image, service, environment, attached):
            left_out.append(service)
            continue
        if not fallback_allowed:
            refuse_fallback_image(image)
        if has_registry(image) and service not in pulled:
            push(image)
    return left_out


def report_existing(image: str) -> None:
    """A name may be given a second time, when what it names is not what is here any more."""
    if build.git_version().endswith("-dirty"):
        fail(
            f"{image} is there already, and there are changes that are not committed",
            "git commit, or a name that is new: make swarm-deploy APP_VERSION=NAME",
        )
    created = run("docker", "image", "inspect", "--format", "{{.Created}}", image).stdout
    say(f"{image} was built on {created[:10]} and is not built again")


def refuse_fallback_image(image: str) -> None:
    label = '{{index .Config.Labels "org.opencontainers.image.base.name"}}'
    base = run("docker", "image", "inspect", "--format", label, image).stdout.strip()
    if base.startswith("fallback/"):
        fail(
            f"{image} is built on the fallback image {base}, which nobody updates",
            "make swarm-deploy APP_VERSION=NEW-NAME where a registry of base images is in reach;"
            " or, knowing that: make swarm-deploy BASE_IMAGES=debian",
        )


def push(image: str) -> None:
    say(f"pushing {image}")
    answer = run("docker", "push", "--quiet", image)
    if answer.returncode:
        why = last_error_line(answer)
        fail(f"{image} cannot be pushed: {why}", "docker login, or set IMAGES to another place")


def pull(image: str) -> bool:
    """False when the registry does not have it; ends where it could not say."""
    answer = run("docker", "pull", "--quiet", image)
    if answer.returncode and not re.search("not found|unknown|does not exist", answer.stderr):
        why = last_error_line(answer)
        fail(f"{image}: the registry does not say whether it has it: {why}", "docker login")
    return not answer.returncode


def build_image(
    image: str, service: str, environment: dict[str, str], attached: Collection[str]
) -> bool:
    """False for a service that may be left out, and has to be (build.without_image)."""
    if base := build.without_image(environment).get(service):
        say(f"{service} is left out: {base} is out of reach and has no fallback image")
        return False
    say(f"building {image}")
    environment = {**os.environ, **environment, "APP_VERSION": image.rpartition(":")[2]}
    command = ["docker", "compose", "--progress=quiet", "build", *attached, service]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:  # noqa: S603
        fail(f"{image} cannot be built, Docker's words are above", "make doctor")
    built = f"{cluster.stack_name()}-{service}"
    if run("docker", "tag", built, image).returncode:
        fail(f"Compose did not name its image {built}", "docker images")
    return True
