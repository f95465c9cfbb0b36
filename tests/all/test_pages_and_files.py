"""A page and its files fit, over releases, updates and the way back.

tests/stack/test_release.py has one release and the way back.
"""

from collections.abc import Iterator

import pytest
from nodes import Deployment, base_image, machines, stands_in
from releases import OpenPages, loading, other_style


def test_three_releases_in_a_row_leave_pages_whole(stack):
    """The third copies the first one's files from the second, which has copied them."""
    pages = OpenPages(stack)
    for version in ("first", "second", "third"):
        with other_style(stack, version):
            stack.make("release")
        pages.load()
    assert len([name for name in pages.files if name.endswith(".css")]) == 3


@pytest.fixture(scope="module")
def site(stack, tmp_path_factory) -> Iterator[Deployment]:
    """Three containers of the application in a Swarm of one node."""
    with machines(stack, 1) as swarm:
        swarm.load("node1", *(base_image(stack, service) for service in ("app", "nginx")))
        site = Deployment(
            tmp_path_factory.mktemp("clone") / "site",
            swarm,
            UPDATE_MONITOR="5s",
            BASE_IMAGES="debian" if stands_in(stack) else "registry",
        )
        site.run("git", "init", "--quiet")
        site.commit("One")
        site.make("swarm")
        site.make("deploy")
        yield site


@pytest.mark.parametrize("nginx", ["that-stays", "that-changes"])
def test_an_update_and_a_rollback_leave_pages_whole(site, nginx):
    before = site.run("git", "describe", "--always").stdout.strip()
    settings = {"NGINX_VERSION": before} if nginx == "that-stays" else {}
    with loading(site) as pages:
        files = pages.load()
        with other_style(site, nginx):
            site.commit(nginx)
            site.make("deploy", **settings)
        assert pages.load() != files
        site.make("rollback")
        assert pages.load() == files
