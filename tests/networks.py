"""Who is in which network, by the files of the core and of an add-on together."""

import re

import yaml
from clone import ROOT

# Networks, by their names: the services in each, and whether it leads outside.
Networks = dict[str, tuple[set[str], bool]]


def composed(*files: str) -> Networks:
    """As Compose and Swarm merge them: networks of a service add up, those of a name replace."""
    read = [yaml.safe_load((ROOT / file).read_text()) for file in files]
    # BACKEND_INTERNAL is true unless it is set.
    leads_outside = {
        name: not (content or {}).get("internal", False)
        for file in read
        for name, content in file.get("networks", {}).items()
    }
    found = {name: (set(), outside) for name, outside in leads_outside.items()}
    for file in read:
        for service, content in file["services"].items():
            for name in content.get("networks", []):
                found[name][0].add(service)
    return found


def of_compose(addon: str) -> Networks:
    return composed("docker-compose.yml", f"{addon}/docker-compose.yml")


def of_swarm(addon: str) -> Networks:
    return composed("docker-stack.yml", f"{addon}/docker-stack.yml")


def documented(file: str) -> Networks:
    """The table `network | services | leads outside` of a page."""
    text = (ROOT / file).read_text()
    head = r"^\| network \| services \| leads outside \|\n\|[-|]+\|\n((?:\|.*\n)+)"
    (table,) = re.findall(head, text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: ({*services.split(", ")}, outside != "-") for name, services, outside in rows}
