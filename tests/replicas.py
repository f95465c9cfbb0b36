"""Three containers of the application, and back to one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clone import Clone, wait_until
from load import Load


@contextmanager
def three(stack: Clone) -> Iterator[None]:
    try:
        scale(stack, 3)
        wait_until_all_are_asked(stack)
        yield
    finally:
        scale(stack, 1)
        wait_until_one_is_asked(stack)


def scale(stack: Clone, number: int) -> None:
    stack.compose(
        *("up", "--detach", "--no-build", "--no-recreate", "--wait"),
        *("--scale", f"app={number}", "app"),
    )


def wait_until_all_are_asked(stack: Clone) -> None:
    with Load(stack) as load:
        wait_until(
            lambda: len({r.replica for r in load.results[-50:] if r.replica}) == 3,
            10,
            "nginx to find them all",
        )


def wait_until_one_is_asked(stack: Clone) -> None:
    """For some seconds nginx asks those that have gone, too."""
    with Load(stack) as load:
        alone = [(200, stack.containers("app")[0][:12])] * 100

        def last() -> list[tuple[int, str]]:
            return [(result.status, result.replica) for result in load.results[-100:]]

        try:
            wait_until(lambda: last() == alone, 60, "nginx to ask the remaining one alone")
        except AssertionError:
            pytest.fail(f"{alone[0]} alone is asked? {Counter(last())}; {load.summary}")
