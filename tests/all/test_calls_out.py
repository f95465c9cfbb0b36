"""BACKEND_INTERNAL: whether the application's network has a way out."""

import re


def test_the_network_of_a_running_stack_gets_a_way_out_and_loses_it(stack):
    def has_way_out() -> bool:
        """By a default route; 0.0.0.0/0 as the kernel writes it."""
        routes = stack.execute("app", "cat", "/proc/net/route")
        return re.search(r"^\w+\t0{8}\t(?!0{8})", routes, re.MULTILINE) is not None

    assert not has_way_out()
    with stack.changed(BACKEND_INTERNAL="false"):
        assert has_way_out()
        answer = stack.make("release", check=False, BACKEND_INTERNAL="true")
        assert f"error: the network {stack.name}_backend is to change -> make up" in answer.stderr
        with stack.client() as client:
            assert client.get("/diagnostics/echo").status_code == 200
    assert not has_way_out()
