"""Optional rooms, switched on with `make up WITH="monitoring logging"` and off with `WITH=`.

The choice is remembered as COMPOSE_FILE in .env, Compose's own way, so that plain `docker compose`
sees the same stack. That line is the only one of .env that `make` writes. With it, Compose reads no
docker-compose.override.yml by itself, and so one that is there is named as well, last.
"""

import os

from compose import ROOT
from messages import die

CORE = "docker-compose.yml"
OVERRIDE = "docker-compose.override.yml"
OVERLAYS = {
    "monitoring": "prometheus/docker-compose.yml",
    "logging": "logstash/docker-compose.yml",
}
LINE = "COMPOSE_FILE="


def remember() -> None:
    """Write the choice in WITH to .env; without WITH the last choice holds."""
    if "WITH" not in os.environ:
        return
    files = [CORE]
    for name in os.environ["WITH"].split():
        if name not in OVERLAYS:
            die(f"there is no room named {name}", f"choose among: {' '.join(OVERLAYS)}")
        if not (ROOT / OVERLAYS[name]).exists():
            die(f"the room {name} is not here: {OVERLAYS[name]} is missing", "make up WITH=")
        files.append(OVERLAYS[name])
    file = ROOT / ".env"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    kept = "".join(line for line in lines if not line.startswith(LINE))
    if files != [CORE]:
        files += [OVERRIDE] if (ROOT / OVERRIDE).exists() else []
        kept += "" if kept.endswith("\n") or not kept else "\n"
        kept += f"{LINE}{os.pathsep.join(files)}\n"
    if kept or file.exists():
        file.write_text(kept)


def missing() -> list[str]:
    """Remembered overlays whose files are gone."""
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.removeprefix(LINE).strip("\"'") for line in lines if line.startswith(LINE)]
    return [name for text in names for name in text.split(os.pathsep) if not (ROOT / name).exists()]
