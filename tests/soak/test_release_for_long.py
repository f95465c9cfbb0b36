"""`make release` under a load long enough to be believed, and of versions that are broken."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from clone import wait_until
from load import Load
from releases import follows_dns, ids, release_and_back


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [1, 3])
def test_a_release_and_the_way_back_lose_none_of_many_requests(stack, number):
    with stack.changed(APP_REPLICAS=str(number)):
        release_and_back(stack, requests=20_000)


NOT_READY = "from webapp import health\nhealth.check(lambda: 'no database')"


@pytest.fixture
def broken(stack):
    """The clone with an application that does not start; fixed at the end."""
    file = stack.folder / "app/wsgi.py"
    text = file.read_text()
    yield lambda line: file.write_text(f"{text}\n{line}\n")
    file.write_text(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        # Not in the build, which imports it as well.
        (
            "import os\nif os.path.exists('/run/secrets/secret_key'): raise RuntimeError('broken')",
            "RuntimeError: broken",
        ),
        (NOT_READY, "no database"),
    ],
    ids=["does-not-start", "never-ready"],
)
def test_a_broken_version_never_serves(stack, broken, line, words):
    broken(line)
    old = ids(stack)
    with Load(stack) as load:
        answer = stack.make("release", APP_VERSION="v3", check=False)
        load.carry_on(200)
    assert answer.returncode
    assert "the old version serves as before -> " in answer.stderr.splitlines()[-2]
    assert words in answer.stderr
    assert load.failed == [], load.summary
    assert "v3" not in {result.version for result in load.results}
    assert ids(stack) == old


def upstream(stack) -> str:
    return stack.execute("nginx", "cat", "/tmp/upstream", check=False)  # noqa: S108


def addresses(stack) -> set[str]:
    """Of the application's containers that run."""
    return {
        network["IPAddress"]
        for container in stack.inspect("app")
        for network in container["NetworkSettings"]["Networks"].values()
    } - {""}


def interrupt(stack, when, number: signal.Signals, **settings: str) -> str:
    """Start a release and interrupt it when `when` holds; what it says."""
    command = ["python3", "-m", "scripts", "release"]
    environment = os.environ | settings
    with subprocess.Popen(
        command, cwd=stack.folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(when, 90, "the moment to interrupt")
        process.send_signal(number)
        _, said = process.communicate(timeout=90)
    assert process.returncode
    return said


def test_a_release_interrupted_while_it_waits_leaves_everything_as_it_was(stack, broken):
    broken(NOT_READY)
    old = ids(stack)
    said = interrupt(stack, lambda: len(addresses(stack)) > len(old), signal.SIGHUP)
    assert "interrupted; the old version serves as before" in said
    assert ids(stack) == old
    assert follows_dns(stack)


def test_a_release_interrupted_at_the_switch_loses_nothing(stack):
    old, before = ids(stack), addresses(stack)

    slow = []

    def switched() -> bool:
        new = addresses(stack) - before
        if new and not slow:
            # nginx has changed over when it is answered.
            slow.append(pool.submit(client.get, "/diagnostics/work?ms=20000", timeout=40))
        return any(f"{address}:8000" in upstream(stack) for address in new)

    with stack.client() as client, ThreadPoolExecutor() as pool, Load(stack) as load:
        said = interrupt(stack, switched, signal.SIGTERM, APP_VERSION="v4")
        load.carry_on(1000)
        assert slow[0].result().status_code == 200
    assert "interrupted; the old version serves as before" in said
    assert load.failed == [], load.summary
    assert ids(stack) == old
    assert follows_dns(stack)


def test_what_an_interrupted_release_left_does_not_come_back(stack):
    """One of those of before, stopped but not removed: Compose would start it again."""
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "app=2", "app")
    left = stack.containers("app")[0]
    stack.run("docker", "stop", left)
    assert "released v6 in place of" in stack.make("release", APP_VERSION="v6").stdout
    assert len(ids(stack)) == 1
    assert left not in ids(stack)
    with stack.client() as client:
        assert client.post("/diagnostics/echo").json()["version"] == "v6"


def test_an_application_that_does_not_start_is_replaced(stack):
    """One that was changed by hand, perhaps, and is started again and again."""
    file = stack.folder / "secrets/secret_key"
    key = file.read_text()
    try:
        file.write_text("too short")
        stack.compose("restart", "app")
        wait_until(lambda: not addresses(stack), 60, "an application that does not start")
        file.write_text(key)
        assert "released v7 in place of" in stack.make("release", APP_VERSION="v7").stdout
    finally:
        file.write_text(key)
    stack.make("up")


def test_a_rotated_key_is_in_use_after_each_release(stack):
    def used() -> str:
        return stack.execute("app", "cat", "/run/secrets/secret_key")

    before = used()
    # Signed with the first key, and read by all.
    with stack.client() as client:
        client.get("/diagnostics/session?value=mine")
        for _ in range(2):
            stack.make("rotate")
            stack.make("release")
            assert client.get("/diagnostics/session").json()["value"] == "mine"
    assert used() != before
    stack.make("rotate")
    stack.make("up")
    fallbacks = stack.execute("app", "cat", "/run/secrets/secret_key_fallbacks")
    assert fallbacks == (stack.folder / "secrets/secret_key_fallbacks").read_text()
    assert before.strip() in fallbacks
