"""The engine keeps images in containerd, as Docker 29 does on fresh installs."""

from collections.abc import Iterator

import load
import pytest
from clone import Clone
from nodes import Swarm, base_image, machines, stands_in


class Elsewhere(Clone):
    """A clone whose stack runs on another machine's engine."""

    machine: Swarm

    def run(self, *command: str, check: bool = True, **environment: str):
        return super().run(*command, check=check, DOCKER_HOST=self.machine.host, **environment)


@pytest.fixture(scope="module")
def site(stack, tmp_path_factory) -> Iterator[Clone]:
    folder = tmp_path_factory.mktemp("clone") / "site"
    options = (
        # Secrets are files of the engine's machine.
        f"--volume={folder}:{folder}",
        "--env=ENGINE_OPTION=--feature=containerd-snapshotter=true",
    )
    with machines(stack, 1, *options) as machine:
        machine.load("node1", *(base_image(stack, service) for service in ("app", "nginx")))
        images = "debian" if stands_in(stack) else "registry"
        Elsewhere.machine = machine
        site = Elsewhere(folder, APP_ENV="testing", BASE_IMAGES=images, **load.LIMITS)
        site.make("up")
        yield site


def ids(site: Clone) -> dict[str, list[str]]:
    return {service: site.containers(service) for service in ("app", "nginx")}


def test_images_are_kept_in_containerd(site):
    assert "io.containerd.snapshotter" in site.machine.ask("info", "--format={{.DriverStatus}}")


def test_make_up_again_changes_nothing(site):
    before = ids(site)
    site.make("up")
    assert ids(site) == before


def test_a_release_and_the_way_back(site):
    before = ids(site)
    said = site.make("release", APP_VERSION="v2").stdout
    assert "released v2" in said.splitlines()[-1]
    said = site.make("release-rollback").stdout
    assert "in place of v2" in said.splitlines()[-1]
    assert ids(site)["nginx"] == before["nginx"]
