"""A Swarm of one node without `make swarm-deploy`: the commands of docs/swarm.md, word for word.

The targets around them have only the tools that macOS brings.
"""

import re
import shutil
import textwrap

import old_tools
import pytest
from clone import ROOT, wait_until
from nodes import Deployment, base_image, machines, stands_in

TEXT = (ROOT / "docs/swarm.md").read_text()
COMMANDS = textwrap.dedent(
    re.search(r"^\*\*By hand\.\*\*.*?\n\n((?:    .+\n)+)", TEXT, re.DOTALL | re.MULTILINE)[1]
)


@pytest.fixture
def site(stack, tmp_path):
    """A clone with a history that leads to a machine of its own."""
    with machines(stack, 1) as machine:
        machine.load("node1", *(base_image(stack, service) for service in ("app", "nginx")))
        site = Deployment(
            tmp_path / "clone",
            machine,
            APP_REPLICAS="1",
            UPDATE_MONITOR="5s",
            SERVER_NAME="localhost example.org",
            BASE_IMAGES="debian" if stands_in(stack) else "registry",
        )
        site.tools = old_tools.alone(tmp_path)
        site.make = lambda *words, **options: site.run(*site.tools, "make", *words, **options)
        site.run("git", "init", "--quiet")
        site.commit("One")
        site.make("swarm-init")
        yield site
        shutil.rmtree(site.folder)


def test_the_commands_of_the_documentation(site):
    # The last of them is `make swarm-status`, which may come too early to be content.
    said = site.run(*site.tools, "bash", "-euc", COMMANDS, check=False).stdout
    assert f"Creating service {site.name}_app" in said
    wait_until(lambda: not site.make("swarm-status", check=False).returncode, 120, "all of it runs")
    with site.client() as client:
        # nginx finds the application a moment after that.
        wait_until(lambda: client.get("/nowhere").status_code == 404, 20, "the application")
    # From .env, quoted as a shell needs it.
    environment = site.tasks("nginx")[0]["Spec"]["ContainerSpec"]["Env"]
    assert "SERVER_NAME=localhost example.org" in environment
    # What was deployed by hand is what `make swarm-deploy` would have deployed.
    before = site.ids("app") | site.ids("nginx")
    site.make("swarm-deploy")
    assert site.ids("app") | site.ids("nginx") == before
    assert "serves app v2, nginx v2" in site.make("swarm-deploy", "APP_VERSION=v2").stdout
    assert "app v2 -> " in site.make("swarm-rollback").stdout
    site.make("swarm-undeploy")
