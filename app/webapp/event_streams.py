"""Streams of events (text/event-stream): nginx passes on each event at once.

https://html.spec.whatwg.org/multipage/server-sent-events.html; docs/fork.md: "Event streams".
"""


def unbuffered(response):
    if response.mimetype == "text/event-stream":
        # nginx otherwise collects what comes until 16 kB are there or the stream ends.
        response.headers.setdefault("X-Accel-Buffering", "no")
        response.headers.setdefault("Cache-Control", "no-cache")
    return response


def init_app(app):
    app.after_request(unbuffered)
