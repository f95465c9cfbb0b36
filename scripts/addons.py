"""Optional add-ons, switched on with `make up WITH="monitoring logging"` and off with `WITH=`.

The choice is remembered as COMPOSE_FILE in .env, Compose's own way, so that plain `docker compose`
sees the same stack. That line is the only one of .env that `make` writes. With it, Compose reads no
docker-compose.override.yml by itself, and so one that is there is named as well, last.

`make swarm-deploy WITH=…` has the same words; in a Swarm the stack that runs is what is remembered.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from scripts import compose
from scripts.compose import ROOT
from scripts.messages import fail

CORE = "docker-compose.yml"
OVERRIDE = "docker-compose.override.yml"
# The folder of each, which has the name of the service that the add-on is about.
FOLDERS = {"monitoring": "prometheus", "logging": "logstash"}
LINE = "COMPOSE_FILE="


def choose() -> None:
    """Let Compose read what WITH says, for now; without WITH the last choice holds."""
    if "WITH" in os.environ:
        compose.use(compose_files(os.environ["WITH"].split(), "make up WITH="))


def remember() -> None:
    """Write the choice in WITH to .env."""
    if "WITH" not in os.environ:
        return
    names = os.environ["WITH"].split()
    files = compose_files(names, "make up WITH=")
    file = ROOT / ".env"
    before = file.read_text() if file.exists() else ""
    lines = before.splitlines(keepends=True)
    kept = "".join(line for line in lines if not line.startswith(LINE))
    if names:
        kept += "" if kept.endswith("\n") or not kept else "\n"
        kept += f"{LINE}{os.pathsep.join(files)}\n"
    if kept != before:
        replace(file.resolve(), kept)


def replace(file: Path, text: str) -> None:
    """Write the whole file or, where that fails, leave the one that is there."""
    new = file.with_name(f"{file.name}.new")
    try:
        new.touch(mode=0o600)
        new.write_text(text)
        if file.exists():
            shutil.copymode(file, new)
            with suppress(PermissionError):
                os.chown(new, file.stat().st_uid, file.stat().st_gid)
        else:
            new.chmod(0o644)
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        fail(f"{file} cannot be written ({error.strerror})", "df -h; ls -l .env")


def compose_files(names: list[str], without: str) -> list[str]:
    """What Compose reads when these add-ons are on; without: what to type when one is not here."""
    override = [OVERRIDE] if (ROOT / OVERRIDE).exists() else []
    return [CORE, *overlays(names, CORE, without), *override]


def overlays(names: list[str], file: str, without: str) -> list[str]:
    """The add-ons' files of that name."""
    paths = []
    for name in names:
        if name not in FOLDERS:
            fail(f"there is no add-on named {name}", f"choose among: {' '.join(FOLDERS)}")
        path = f"{FOLDERS[name]}/{file}"
        if not (ROOT / path).exists():
            fail(f"the add-on {name} is not here: {path} is missing", without)
        paths.append(path)
    return paths


def missing() -> list[str]:
    """Remembered overlays whose files are gone."""
    if "COMPOSE_FILE" in os.environ:
        # Then what is remembered does not count: choose(), or a person's own.
        return []
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.removeprefix(LINE).strip("\"'") for line in lines if line.startswith(LINE)]
    return [name for text in names for name in text.split(os.pathsep) if not (ROOT / name).exists()]
