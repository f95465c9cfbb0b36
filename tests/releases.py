"""`make release` and back under load, for `make test` and `make soak`."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
from clone import Clone, wait_until
from load import Load


def ids(stack: Clone) -> set[str]:
    return set(stack.containers("app"))


def follows_dns(stack: Clone) -> bool:
    """Does nginx look for all containers again, so that one with another address is found?"""
    return not stack.execute("nginx", "find", "/tmp", "-name", "upstream")  # noqa: S108


@contextmanager
def other_style(stack: Clone, text: str) -> Iterator[None]:
    """Another style sheet, and so another hashed name, until the end of the block."""
    file = stack.folder / "app/webapp/static/page.css"
    before = file.read_text()
    file.write_text(f"{before}/* {text} */\n")
    try:
        yield
    finally:
        file.write_text(before)


class OpenPages:
    """A visitor's pages: the one that there is now, and those opened before."""

    def __init__(self, stack: Clone):
        self.stack, self.files = stack, set()

    def load(self) -> set[str]:
        """Load the page and the files of all; the files of this one."""
        somebodys = {"Cookie": "passes=the-cache"}
        with self.stack.client() as client:
            # Made for this visitor, and what nginx gives to all.
            for headers in (somebodys, {}):
                page = self.get(client, "/", headers)
                files = {*re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)}
                assert any(name.endswith(".css") for name in files), page.text
                self.files |= files
            # A copy, because another thread may add to them meanwhile.
            for name in [*self.files]:
                answer = self.get(client, name, somebodys)
                assert "immutable" in answer.headers["Cache-Control"], dict(answer.headers)
        return files

    def get(self, client: httpx.Client, path: str, headers: dict[str, str]) -> httpx.Response:
        begin = datetime.now(UTC)
        answer = client.get(path, headers=headers)
        if answer.status_code != 200:
            raise AssertionError(f"{begin} GET {path} {headers}: {answer} {dict(answer.headers)}")
        return answer


@contextmanager
def loading(site: Clone) -> Iterator[OpenPages]:
    """All the time; while nginx is replaced, connections are refused.

    A problem is the request, the answer, and nginx's line about it: which containers it asked.
    """
    pages, stop, problems, loaded = OpenPages(site), threading.Event(), [], []

    def load() -> None:
        while not stop.is_set():
            try:
                loaded.append(pages.load())
            except httpx.TransportError:
                pass
            except Exception as error:
                problems.append(str(error))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield pages
        # After the change as well.
        number = len(loaded)
        wait_until(lambda: len(loaded) > number + 2, 20, "pages")
    finally:
        stop.set()
        thread.join()
    print(f"{len(loaded)} times, {len(pages.files)} files, {len(problems)} problems")
    if problems:
        log = site.run("docker", "service", "logs", "--raw", f"{site.name}_nginx").stdout
        asked = re.findall(r"'x-request-id': '(\w+)'", "".join(problems))
        problems += [line for line in log.splitlines() if any(it in line for it in asked)]
    assert problems == []


def release_and_back(stack: Clone, requests: int) -> None:
    """Two releases, each under load: to a new version, and back to the one before.

    The clone has another style sheet than what runs.
    """
    with stack.client() as client:
        before = client.post("/diagnostics/echo").json()["version"]
    pages = OpenPages(stack)
    for target, version, other in (("release", "v2", before), ("release-rollback", before, "v2")):
        old, files, workers = ids(stack), pages.load(), {*stack.children("nginx")}
        with Load(stack, pause=0.02) as load:
            said = stack.make(target, APP_VERSION="v2").stdout
            load.carry_on(requests)
        print(f"make {target}: {load.summary}")
        assert load.failed == [], load.summary
        # A worker that ends loses what a browser was about to send on a new HTTP/2 connection
        # (docs/edge.md).
        assert not any(1 in result.repeated for result in load.results), load.summary
        assert {*stack.children("nginx")} <= workers
        assert said.splitlines()[-1] == f"released {version} in place of {other}"
        assert {result.version for result in load.results[-50:]} == {version}
        assert {result.version for result in load.results} == {before, "v2"}
        assert len(ids(stack)) == len(old)
        assert not ids(stack) & old
        # Not the page that nginx kept.
        assert pages.load() != files
    # Not forward again.
    assert "no earlier version is kept" in stack.make("release-rollback", check=False).stderr
    assert not ids(stack) & old
