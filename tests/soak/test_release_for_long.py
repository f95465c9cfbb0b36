"""`make release` under a load long enough to be believed, and of versions that are broken."""

import signal
import subprocess
import time

import pytest
from clone import wait_until
from load import Load
from releases import follows_dns, ids, release_and_back


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [1, 3])
def test_a_release_and_the_way_back_lose_none_of_many_requests(stack, number):
    with stack.changed(APP_REPLICAS=str(number)):
        release_and_back(stack, requests=20_000)


@pytest.fixture
def broken(stack):
    """The clone with an application that does not start; mended at the end."""
    file = stack.folder / "app/wsgi.py"
    text = file.read_text()
    yield lambda line: file.write_text(f"{text}\n{line}\n")
    file.write_text(text)


def test_a_version_that_does_not_start_never_serves(stack, broken):
    # Not in the build, which imports it as well.
    broken("import os\nif os.path.exists('/run/secrets/secret_key'): raise RuntimeError('broken')")
    old = ids(stack)
    with Load(stack) as load:
        answer = stack.make("release", APP_VERSION="v3", check=False)
        load.carry_on(200)
    assert answer.returncode
    assert "the old version serves as before -> " in answer.stderr.splitlines()[-2]
    assert "RuntimeError: broken" in answer.stderr
    assert load.failed == [], load.summary
    assert "v3" not in {result.version for result in load.results}
    assert ids(stack) == old


def test_an_interrupted_release_leaves_everything_as_it_was(stack, broken):
    broken("open('/tmp/draining', 'w').close()")
    old = ids(stack)
    command = ["python3", "scripts/release.py"]
    with subprocess.Popen(command, cwd=stack.folder, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(ids(stack)) > len(old), 60, "a new container")
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode
    assert "interrupted; the old version serves as before" in said
    assert ids(stack) == old
    assert follows_dns(stack)
