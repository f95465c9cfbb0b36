"""Recipes of docs/fork.md that need no container."""

import queue

from flask import Blueprint
from recipes import blocks, recipe


class Listener:
    """A queue with one message, in which nothing more arrives within 15 s."""

    def __init__(self):
        self.messages = ["hello"]

    def get(self, timeout):
        assert timeout < 30  # proxy_read_timeout
        if not self.messages:
            raise queue.Empty
        return self.messages.pop()


def test_events_and_heartbeats(make_app):
    app, blueprint = make_app(), Blueprint("recipe", __name__)
    code = blocks(recipe("Event streams"))[0]
    exec(code, {"blueprint": blueprint, "subscribe": Listener})  # noqa: S102
    app.register_blueprint(blueprint)
    answer = app.test_client().get("/events", buffered=False)
    assert answer.headers["X-Accel-Buffering"] == "no"
    parts = iter(answer.response)
    assert [next(parts) for _ in range(2)] == [b"data: hello\n\n", b": heartbeat\n\n"]


def test_a_view_with_its_own_policy(make_app):
    line = next(
        line for line in recipe("Headers of a view").split("`") if line.startswith("return")
    )
    views = {}
    exec(f"def view():\n    page = ''\n    {line}", views)  # noqa: S102
    app = make_app()
    app.add_url_rule("/view", view_func=views["view"])
    answer = app.test_client().get("/view")
    assert answer.headers["Content-Security-Policy"] == "default-src 'self'"
