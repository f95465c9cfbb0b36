"""The names and tags of images."""

import os
import re

from scripts import build, compose
from scripts.compose import ROOT, run
from scripts.messages import fail

# https://docs.docker.com/reference/cli/docker/image/tag/
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# https://github.com/distribution/reference/blob/main/reference.go: after the registry's host
PATH = re.compile(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*")
# Swarm's secrets have 64 characters: this is left of them by "-certificate-key-" and the hash.
LONGEST_NAME = 64 - 17 - 12
# What goes into the image of nginx beside its folder.
OF_NGINX = ["app/webapp/static"]


def require_names(stack: str, images: str) -> None:
    """Docker would say it after the build, and of something else."""
    name = f"{images}/app"
    path = name.partition("/")[2] if has_registry(name) else name
    if not PATH.fullmatch(path):
        fail(
            f"IMAGES: {images!r} begins no name of an image",
            "write lower case, as in IMAGES=registry.example.org/team/site",
        )
    if len(stack) > LONGEST_NAME:
        fail(
            f"COMPOSE_PROJECT_NAME: {stack!r} has {len(stack)} characters",
            f"write {LONGEST_NAME} at most; Swarm's names of secrets have 64, and begin with it",
        )


def build_paths(services: set[str]) -> dict[str, list[str]]:
    """The folders that go into the images of those of these services that are built here."""
    folders = {
        name: [os.path.relpath(service["build"]["context"], ROOT)]
        for name, service in compose.config()["services"].items()
        if name in services and "build" in service
    }
    folders["nginx"] += OF_NGINX
    return folders


def variable_name(service: str, of: str) -> str:
    """The stack files' name for this: NODE_EXPORTER_VERSION."""
    return f"{service.replace('-', '_').upper()}_{of}"


def image_tags(variables: dict[str, str], folders: dict[str, list[str]]) -> dict[str, str]:
    """The image tags: what was asked for, or what git calls the last change of each.

    So a deploy leaves a service alone of which nothing has changed. What is tagged is a release of
    the application, by that name.
    """
    asked = variables.get("APP_VERSION")
    if not asked:
        now = build.git_version()
        if not now:
            fail("git does not say which version this is", "make swarm-deploy APP_VERSION=1.0")
        if now.endswith("-dirty"):
            fail(
                "there are changes that are not committed, so no version would say what runs",
                "git commit, or: make swarm-deploy APP_VERSION=NAME",
            )
        paths = [path for paths in folders.values() for path in paths]
        unknown = run("git", "ls-files", "--others", "--exclude-standard", "--", *paths).stdout
        if unknown:
            fail(f"{unknown.split()[0]} is not committed, and would be built in", "git add, or rm")
        if run("git", "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
            fail("this clone is shallow: git cannot say what changed when", "git fetch --unshallow")
    tags = {
        service: variables.get(variable_name(service, "VERSION")) or asked or last_change(paths)
        for service, paths in folders.items()
    }
    if not asked:
        release = run("git", "describe", "--tags", "--exact-match").stdout.strip()
        tags["app"] = release or tags["app"]
    for tag in tags.values():
        if tag == "latest" or not TAG.fullmatch(tag):
            fail(f"{tag!r} is no version", "make swarm-deploy APP_VERSION=1.0")
    return tags


def last_change(paths: list[str]) -> str:
    return run("git", "log", "-1", "--format=%h", "--", *paths).stdout.strip()


def has_registry(images: str) -> bool:
    """By Docker's own rule: a first part with a dot, a colon, or localhost is a host."""
    host, slash, _ = images.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")
