"""`make release` and back under load, for `make test` and `make soak`."""

from clone import Clone
from load import Load


def ids(stack: Clone) -> set[str]:
    return set(stack.containers("app"))


def follows_dns(stack: Clone) -> bool:
    """Does nginx look for all containers again, so that one with another address is found?"""
    return not stack.execute("nginx", "find", "/tmp", "-name", "upstream")  # noqa: S108


def release_and_back(stack: Clone, requests: int) -> None:
    """Two releases, each under load: to a new version, and back to the one before."""
    with stack.client() as client:
        before = client.post("/diagnostics/echo").json()["version"]
    for target, version in (("release", "v2"), ("release-rollback", before)):
        old, workers = ids(stack), {*stack.children("nginx")}
        with Load(stack, pause=0.02) as load:
            said = stack.make(target, APP_VERSION="v2").stdout
            load.carry_on(requests)
        print(f"make {target}: {load.summary}")
        assert load.failed == [], load.summary
        # A worker that ends loses what a browser was about to send on a new HTTP/2 connection
        # (docs/edge.md).
        assert not any(1 in result.repeated for result in load.results), load.summary
        assert {*stack.children("nginx")} <= workers
        assert said.splitlines()[-1] == f"released {version}"
        assert {result.version for result in load.results[-50:]} == {version}
        assert {result.version for result in load.results} == {before, "v2"}
        assert len(ids(stack)) == len(old)
        assert not ids(stack) & old
