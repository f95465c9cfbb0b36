"""The engine keeps images in containerd, as Docker 29 does on fresh installs."""

import json
from collections.abc import Iterator

import load
import pytest
from clone import Clone
from nodes import Deployment, Swarm, base_image, docker, machines, stands_in, variant


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


# The least that BuildKit takes from a scanner: https://github.com/moby/buildkit/blob/master/docs/attestations/sbom-protocol.md
SCANNER = (
    "COPY <<EOF /sbom.spdx.json",
    json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://spdx.dev/Document",
            "predicate": {
                "spdxVersion": "SPDX-2.3",
                "packages": [{"name": "found by the scanner"}],
            },
        }
    ),
    "EOF",
    'ENTRYPOINT ["sh", "-c", "cp /sbom.spdx.json $BUILDKIT_SCAN_DESTINATION"]',
)


def attached(image: str, kind: str) -> str:
    """What the registry has beside an image: Provenance or SBOM."""
    return docker("buildx", "imagetools", "inspect", image, f"--format={{{{json .{kind}}}}}")


def test_a_deployed_image_says_what_it_is_built_from(site, stack, tmp_path):
    machine = site.machine
    machine.start_registry()
    with variant(base_image(stack, "app"), *SCANNER) as scanner:
        machine.push(scanner, "scanner")
    deployment = Deployment(
        tmp_path / "site",
        machine,
        APP_REPLICAS="1",
        UPDATE_MONITOR="5s",
        BASE_IMAGES=site.settings["BASE_IMAGES"],
        IMAGES=machine.images,
        SBOM=f"generator={machine.images}/scanner",
    )
    deployment.run("git", "init", "--quiet")
    version = deployment.commit("One")
    deployment.make("swarm-init")
    # Passed on to the build by docker-compose.yml, like a proxy's address with its password.
    deployment.make("swarm-deploy", no_proxy="argument-of-the-build")
    base = machine.ask("image", "inspect", "--format={{.Id}}", base_image(stack, "app"))
    text = attached(f"{machine.images}/app:{version}", "Provenance")
    digests = [one["digest"]["sha256"] for one in json.loads(text)["SLSA"]["materials"]]
    assert base.removeprefix("sha256:") in digests
    assert "argument-of-the-build" not in text
    for service in ("app", "nginx"):
        assert "found by the scanner" in attached(f"{machine.images}/{service}:{version}", "SBOM")
