"""What a user types every day needs no more than macOS brings: bash 3.2, make 3.81, Python 3.9."""

import old_tools
import pytest
from clone import Clone, leftovers


@pytest.fixture
def clone(stack, tmp_path):
    """A clone whose `make` has these tools alone; with the base images of the stack that runs."""
    if not old_tools.python():
        pytest.skip("Python 3.9 is not here")
    clone = Clone(tmp_path / "clone")
    tools = old_tools.alone(tmp_path)
    for file in clone.folder.rglob("*"):
        # As a zip unpacks them.
        file.chmod(0o755 if file.is_dir() else 0o644)
    clone.make = lambda *words, **options: clone.run(*tools, "make", *words, **options)
    yield clone
    Clone.remove(clone)
    assert leftovers(clone.name) == []


def test_every_day(clone):
    address = clone.make("up").stdout.splitlines()[-1]
    first = clone.containers("app")
    assert clone.make("up").stdout.splitlines()[-1] == address
    assert clone.containers("app") == first
    for target in ("help", "doctor", "secrets", "ps", "config", "reload", "purge", "rotate"):
        answer = clone.make(target)
        assert answer.stderr == "", target
    said = clone.make("release", "APP_VERSION=v2").stdout.splitlines()[-1]
    assert said.startswith("released v2 in place of ")
    assert "step 2 of 2" in clone.make("rotate").stdout
    assert clone.make("release-rollback").stdout.splitlines()[-1].startswith("released ")
    clone.make("down")
    assert clone.containers("app") == []
