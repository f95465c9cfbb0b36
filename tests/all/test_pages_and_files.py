"""A page and its files fit, over releases, updates and the way back.

tests/stack/test_release.py has one release and the way back.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from clone import wait_until
from nodes import Deployment, base_image, machines, stands_in
from releases import OpenPages, loading, other_style
from replicas import scale


def test_three_releases_in_a_row_leave_pages_whole(stack):
    """The third copies the first one's files from the second, which has copied them."""
    pages = OpenPages(stack)
    for version in ("first", "second", "third"):
        with other_style(stack, version):
            stack.make("release")
        pages.load()
    assert len([name for name in pages.files if name.endswith(".css")]) == 3


def test_a_get_that_waits_while_dns_changes_is_answered(replicas):
    """nginx gives up on a request of before the change, once it has to ask another replica."""
    has, hangs, dies = all_ = replicas.containers("app")
    file = f"x-{hashlib.md5(b'x').hexdigest()}.css"  # noqa: S324 (as in file names)
    # Among its copies (app/webapp/peer_files.py), which its next workers look for.
    before = {*replicas.children("app")}
    copy = f"cd /dev/shm/peers-* && mkdir -p static && printf x >static/{file} && kill -HUP 1"
    replicas.run("docker", "exec", has, "sh", "-c", copy)
    wait_until(lambda: not before & {*replicas.children("app")}, 40, "its next workers")
    scale(replicas, 4)
    fourth = replicas.containers("app")[3]
    wait_until(lambda: fourth[:12] in some_replicas(replicas), 20, "nginx to find the fourth")
    paths = (f"/static/{file}", "/diagnostics/echo")
    with (
        replicas.client(timeout=60, headers={"Cookie": "passes=the-cache"}) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        try:
            send_signals(replicas, dict.fromkeys((*all_, fourth), "STOP"))
            asked = {path: [pool.submit(client.get, path) for _ in range(8)] for path in paths}
            replicas.run("docker", "rm", "--force", fourth)
            # Until nginx has asked DNS again (nginx/upstream.sh); no answer shows that it has. All
            # of it within 10 s (proxy_next_upstream_timeout).
            time.sleep(3)
            assert not any(it.done() for path in paths for it in asked[path])
        finally:
            send_signals(replicas, {has: "CONT", hangs: "CONT", dies: "KILL"})
        for path in paths:
            assert Counter(it.result().status_code for it in asked[path]) == {200: 8}, path


def send_signals(replicas, signals: dict[str, str]) -> None:
    """To the workers of each container."""

    def send(container: str, signal: str) -> None:
        command = f"kill -{signal} $(cat /proc/1/task/1/children)"
        replicas.run("docker", "exec", container, "sh", "-c", command)

    with ThreadPoolExecutor() as pool:
        [*pool.map(send, signals.keys(), signals.values())]


def some_replicas(replicas) -> set[str]:
    with replicas.client() as client:
        return {client.post("/diagnostics/echo").headers.get("X-Replica") for _ in range(8)}


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
        site.make("swarm-init")
        site.make("swarm-deploy")
        yield site


@pytest.mark.parametrize("nginx", ["that-stays", "that-changes"])
def test_an_update_and_a_rollback_leave_pages_whole(site, nginx):
    before = site.run("git", "describe", "--always").stdout.strip()
    settings = {"NGINX_VERSION": before} if nginx == "that-stays" else {}
    with loading(site) as pages:
        files = pages.load()
        with other_style(site, nginx):
            site.commit(nginx)
            site.make("swarm-deploy", **settings)
        assert pages.load() != files
        site.make("swarm-rollback")
        assert pages.load() == files
