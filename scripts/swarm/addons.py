"""The add-ons of a deploy, and the nodes that keep their data."""

import os

from scripts import addons, compose, doctor
from scripts.compose import run
from scripts.messages import fail
from scripts.swarm import cluster
from scripts.swarm.stack_file import STACK_FILE

# What to type when an add-on that is wanted cannot be had.
WITHOUT = "make swarm-deploy WITH="


def choose_addons() -> list[str]:
    """The stack files of the add-ons in WITH; without WITH those that run stay.

    What `make up` remembers is another matter.
    """
    if "WITH" in os.environ:
        names = os.environ["WITH"].split()
    else:
        running = cluster.services()
        names = [name for name, folder in addons.FOLDERS.items() if folder in running]
    files = addons.overlays(names, STACK_FILE, WITHOUT)
    compose.use(addons.compose_files(names, WITHOUT))
    doctor.require([[doctor.programs]])
    places = {name: pinned_node(name) for name in names}
    # Another machine cannot be looked at from here.
    if set(places.values()) == {compose.engine_info()["Swarm"]["NodeID"]}:
        doctor.require([[doctor.disk, doctor.memory, doctor.kernel]])
    for name, node in places.items():
        run("docker", "node", "update", "--label-add", f"{name}=true", node)
    return files


def pinned_node(addon: str) -> str:
    """The node on which an add-on's data stays: the one with its label, or the only one."""
    listed = run("docker", "node", "ls", "--quiet", "--filter", f"node.label={addon}=true")
    labelled = listed.stdout.split()
    if len(labelled) > 1:
        fail(
            f"{len(labelled)} nodes have the label {addon}=true, the add-on's data stays on one",
            f"docker node update --label-rm {addon} NODE",
        )
    nodes = run("docker", "node", "ls", "--quiet").stdout.split()
    if not labelled and len(nodes) > 1:
        this = compose.engine_info()["Name"]
        fail(
            f"none of the {len(nodes)} nodes has the label {addon}=true, for the add-on's data",
            f"docker node update --label-add {addon}=true {this}",
        )
    return [*labelled, *nodes][0]
