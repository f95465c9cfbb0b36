"""Attacks that worked once, on the running stack of tests/conftest.py."""

import load
import pytest


@pytest.fixture(scope="module")
def attacked(stack):
    """The stack with the limits that visitors meet: the defaults."""
    with stack.changed(**dict.fromkeys(load.LIMITS, "")):
        yield stack
