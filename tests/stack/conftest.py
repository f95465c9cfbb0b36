"""The stack under test: started once from a fresh clone, used by every test, removed at the end."""

import load
import pytest
from clone import Clone, leftovers


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """A running stack, as production but with the diagnostics pages (app/webapp/diagnostics.py).

    Its folder has a space in its name, since users' folders do.
    """
    clone = Clone(tmp_path_factory.mktemp("clone") / "a fresh clone", APP_ENV="testing")
    try:
        clone.make("up")
        yield clone
    finally:
        clone.remove()
    assert leftovers(clone.name) == []


@pytest.fixture
def client(stack):
    """An HTTP/1.1 client of the stack over TLS."""
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def loaded(stack):
    """The stack with limits that a load from one address does not reach."""
    with stack.changed(**load.LIMITS):
        yield stack
