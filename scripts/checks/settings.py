"""Checks of .env, of the files that it names, and of the base images."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from scripts import addons, build, compose, limits
from scripts.checks import Problem
from scripts.compose import ROOT, run


def line_ends() -> Iterator[Problem]:
    """Shell scripts and configuration with CRLF fail in containers in ways hard to read."""
    kinds = ("*.sh", "*.envsh", "Dockerfile", "*.template", "*.conf", "*.yml")
    folders = ("scripts", "images", "nginx", "app", *addons.FOLDERS.values())
    files = [file for kind in kinds for folder in folders for file in (ROOT / folder).rglob(kind)]
    broken = [file for file in [*ROOT.glob("*.yml"), *files] if b"\r\n" in file.read_bytes()]
    if broken:
        names = ", ".join(str(file.relative_to(ROOT)) for file in broken[:3])
        yield Problem(
            f"{len(broken)} files have Windows line ends ({names}, …)",
            "git config core.autocrlf input && git rm -rq --cached . && git reset --hard",
        )


def dotenv() -> Iterator[Problem]:
    """Compose would take the default of every setting, without a word."""
    file = ROOT / ".env"
    if file.is_symlink() and not file.exists():
        yield Problem(
            f".env is a link to {file.readlink()}, which does not exist",
            "mount or restore what it leads to, or: rm .env",
        )
        return
    try:
        text = file.read_bytes() if file.is_file() else b""
        text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        yield Problem(
            f".env is not UTF-8, in line {line}",
            "save it as UTF-8, or: iconv -f latin1 -t utf-8 .env >new && mv new .env",
        )


def remembered_addons() -> Iterator[Problem]:
    gone = addons.missing()
    if gone:
        yield Problem(f".env remembers {', '.join(gone)}, which is gone", "make up WITH=")


def configuration() -> Iterator[Problem]:
    try:
        compose.config()
    except ValueError as error:
        yield Problem(f"Compose refuses the configuration: {error}", "fix .env or the named file")


def unread_settings() -> Iterator[Problem]:
    """Names in .env that no file of Compose passes on: no error, because the stack works."""
    file = ROOT / ".env"
    text = file.read_text(errors="replace") if file.exists() else ""
    named = compose.setting("COMPOSE_FILE").split(os.pathsep)
    files = {*ROOT.glob("*.yml"), *ROOT.glob("*/*.yml"), *(ROOT / it for it in named if it)}
    read = "".join(file.read_text(errors="replace") for file in files)
    explained = re.findall(r"^# (\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    # With env_file, or by the name alone.
    passed = [it.get("environment") or {} for it in compose.config()["services"].values()]
    for name in dict.fromkeys(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)):
        if name in explained or name.startswith(("COMPOSE_", "DOCKER_", "BUILDKIT_", "BUILDX_")):
            continue
        if re.search(rf"\$\{{?{name}\b", read):
            continue
        if any(it.get(name) == compose.setting(name) for it in passed if name in it):
            continue
        yield Problem(
            f".env has {name}, and no compose file passes it on",
            "correct the name, or add it under `environment` of app: docs/fork.md",
        )


def way_out() -> Iterator[Problem]:
    """Compose takes more words for true and false than the engine, which has it as well."""
    if (value := compose.setting("BACKEND_INTERNAL")) not in ("", "true", "false"):
        yield Problem(f"BACKEND_INTERNAL={value} is neither true nor false", "correct .env")


def folder_or_volume() -> Iterator[Problem]:
    """Compose takes a name without a slash for a volume, whatever lies beside it."""
    name = compose.setting("CERTIFICATES")
    if name and "/" not in name and (ROOT / name).is_dir():
        yield Problem(
            f"CERTIFICATES={name} names a Docker volume, and not the folder {name} here",
            f"write CERTIFICATES=./{name}, or rename the folder",
        )


def settings() -> Iterator[Problem]:
    """No setting needs more than another one allows."""
    if found := limits.problem(compose.config()):
        yield Problem(*found)


def certificates() -> Iterator[Problem]:
    """nginx's container sees the folder that CERTIFICATES names, and nothing outside of it."""
    for mount in compose.config()["services"]["nginx"].get("volumes", []):
        if mount["target"] != "/etc/nginx/certificates" or mount["type"] != "bind":
            continue
        folder = Path(mount["source"])
        try:
            if not (compose.engine_is_local() and folder.stat()):
                continue
        except PermissionError:
            # The container's user may still enter it.
            continue
        except OSError as error:
            yield Problem(
                f"CERTIFICATES: {folder}: {error.strerror}",
                "put fullchain.pem and privkey.pem there, or leave CERTIFICATES empty",
            )
            continue
        for file in ("fullchain.pem", "privkey.pem"):
            target = Path(os.path.realpath(folder / file))
            if not target.is_relative_to(os.path.realpath(folder)):
                yield Problem(
                    f"CERTIFICATES: {folder / file} is a link to {target}, outside of that folder",
                    "copy both files into a folder of their own; certbot: docs/certificates.md",
                )
                break


def build_secrets() -> Iterator[Problem]:
    """Files that a build needs; by default they are empty."""
    for variable in ("CA_CERTIFICATES", "PIP_CONFIG"):
        file = compose.config()["secrets"].get(variable.lower(), {}).get("file")
        if file and not Path(file).exists():
            yield Problem(f"{variable}: {file} does not exist", f"correct or remove {variable}")


def images() -> Iterator[Problem]:
    """A base image that has no fallback is reachable, unless its service is optional.

    Only the first is reported, before other problems: nobody repairs a machine for nothing.
    """
    for service, its in compose.base_images().items():
        for variable, image in its.items():
            # As images/base-images.sh finds it.
            fallback_image = ROOT / "images" / variable.removesuffix("_IMAGE").lower()
            if not (fallback_image.is_dir() or build.is_optional(service) or can_be_had(image)):
                yield Problem(*build.out_of_reach(service, image))
                return


def can_be_had(image: str) -> bool:
    """Pulled only where nothing else tells: the engine may know a way that the client does not."""
    commands = [["image", "inspect"]]
    if compose.setting("BASE_IMAGES") != "debian":
        commands += [["manifest", "inspect"], ["pull", "--quiet"]]
    return any(run("docker", *command, image).returncode == 0 for command in commands)


def registry() -> Iterator[Problem]:
    """Only a problem where fallback images are forbidden: otherwise `make up` builds them."""
    if compose.setting("BASE_IMAGES") != "registry":
        return
    missing = [
        image
        for service, images in compose.base_images().items()
        for image in images.values()
        if not build.is_optional(service)
        and run("docker", "image", "inspect", image).returncode
        and run("docker", "manifest", "inspect", image).returncode
    ]
    if missing:
        yield Problem(
            f"no registry gives {', '.join(missing)}, and BASE_IMAGES=registry allows no fallback",
            "check the network and docker login, or type: make up BASE_IMAGES=auto",
        )
