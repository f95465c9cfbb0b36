"""What scripts/ decides without an engine."""

import sys

import pytest
from conftest import APP

sys.path.insert(0, str(APP.parent / "scripts"))

import deploy
import swarm


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("site", False),
        ("team/site", False),
        ("registry.example.org/site", True),
        ("localhost/site", True),
        ("registry:5000/team/site", True),
        ("registry.example.org", False),
    ],
)
def test_where_images_are_pushed(images, expected):
    assert deploy.has_registry(images) is expected


@pytest.mark.parametrize("tag", ["latest", "-v1", "a/b", "a b", "x" * 129])
def test_tags_that_are_no_version(tag):
    with pytest.raises(SystemExit, match="is no version"):
        deploy.versions({"APP_VERSION": tag})


def test_a_given_version_is_nginx_as_well_unless_it_has_its_own():
    assert deploy.versions({"APP_VERSION": "1.0"}) == {"app": "1.0", "nginx": "1.0"}
    given = {"APP_VERSION": "1.1", "NGINX_VERSION": "1.0"}
    assert deploy.versions(given) == {"app": "1.1", "nginx": "1.0"}


def test_the_version_in_an_image_name():
    for image in ("site/app:v1", "127.0.0.1:5000/site/app:v1@sha256:0a1b"):
        assert swarm.version({"ContainerSpec": {"Image": image}}) == "v1"
