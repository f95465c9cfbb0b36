"""Event streams, which nginx passes on at once when the response says so."""

import pytest
from flask import Response


@pytest.mark.parametrize(
    ("kind", "buffering", "cache"),
    [
        ("text/event-stream", "no", "no-cache"),
        ("text/event-stream; charset=utf-8", "no", "no-cache"),
        ("text/plain", None, None),
    ],
)
def test_event_streams_are_not_buffered(make_app, kind, buffering, cache):
    app = make_app()
    app.add_url_rule("/events", view_func=lambda: Response("data: 1\n\n", content_type=kind))
    answer = app.test_client().get("/events")
    assert answer.headers.get("X-Accel-Buffering") == buffering
    assert answer.headers.get("Cache-Control") == cache
