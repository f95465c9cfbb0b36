"""What the tests of the running stack need to ask; there only when APP_ENV is testing."""

import hashlib
import os
import socket
import sys
import tempfile
import time
import uuid

from flask import Blueprint, Response, abort, current_app, request, send_file, session

from . import request_id

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
LONGEST_MS = 600_000
LARGEST_MB = 2_048

blueprint = Blueprint("diagnostics", __name__, url_prefix="/diagnostics")


@blueprint.after_request
def uncached(response):
    response.headers.setdefault("Cache-Control", "no-store")
    # nginx puts its own in their place.
    response.headers.update(
        {"Strict-Transport-Security": "max-age=1", "X-Content-Type-Options": "x"}
    )
    return response


def bounded(name, default, most):
    """A whole number from the query string, from 0 to `most`; anything else is a 400."""
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        abort(400, f"{name} must be a whole number up to {most}.")
    return int(text)


@blueprint.route("/echo", methods=METHODS)
def echo():
    """The request as the application sees it."""
    body = request.get_data()
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query_string.decode("latin-1"),
        "headers": [list(header) for header in request.headers],
        "body_length": len(body),
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "remote_addr": request.remote_addr,
        "scheme": request.scheme,
        "host": request.host,
        "request_id": request.environ.get(request_id.KEY),
        "replica": socket.gethostname(),
        "worker": os.getpid(),
        "version": current_app.config["APP_VERSION"],
    }


@blueprint.get("/page")
def page():
    """A page of which no two are alike.

    Cache-Control is what `cache` says, Vary what `vary` says; with `cookie=1` it sets one. It takes
    `ms` milliseconds and has `bytes` of padding.
    """
    headers = {
        name: request.args[argument]
        for name, argument in (("Cache-Control", "cache"), ("Vary", "vary"))
        if argument in request.args
    }
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        abort(400, "cache and vary must be printable ASCII.")
    if bounded("cookie", 0, 1):
        headers["Set-Cookie"] = "visitor=one"
    time.sleep(bounded("ms", 0, LONGEST_MS) / 1000)
    return {
        "id": uuid.uuid4().hex,
        "language": request.headers.get("Accept-Language"),
        "padding": "x" * bounded("bytes", 0, LARGEST_MB * 1024),
    }, headers


@blueprint.get("/headers")
def headers():
    """The query's fields as headers of the response."""
    return "", dict(request.args)


@blueprint.get("/hello")
def hello():
    """The least a view can do, for tests/bench."""
    return "hello\n"


@blueprint.post("/upload")
def upload():
    """Files of a multipart form, with their sizes; larger ones stay in /tmp for `ms`."""
    sizes = {name: file.seek(0, os.SEEK_END) for name, file in request.files.items()}
    time.sleep(bounded("ms", 0, LONGEST_MS) / 1000)
    return sizes


@blueprint.route("/work", methods=METHODS)
def work():
    """Take `ms` milliseconds, `kind=sleep` or `kind=cpu`; a log line says that it has begun."""
    ms, kind = bounded("ms", 100, LONGEST_MS), request.args.get("kind", "sleep")
    current_app.logger.info("working for %d ms", ms)
    if kind == "sleep":
        time.sleep(ms / 1000)
    elif kind == "cpu":
        end = time.thread_time() + ms / 1000
        while time.thread_time() < end:
            pass
    else:
        abort(400, "kind must be sleep or cpu.")
    return {"kind": kind, "ms": ms, "worker": os.getpid()}


@blueprint.get("/stream")
def stream():
    """An answer in `parts` of `bytes` each, each after `ms` milliseconds; passed on as it comes.

    With `events=1` it is an event stream.
    """
    parts, ms = bounded("parts", 10, 1_000_000), bounded("ms", 0, LONGEST_MS)
    part = b"x" * bounded("bytes", 8, LARGEST_MB * 1024)

    def generate():
        for _ in range(parts):
            time.sleep(ms / 1000)
            yield part

    if bounded("events", 0, 1):
        part = b"data: %b\n\n" % part
        return Response(generate(), content_type="text/event-stream")
    headers = {"X-Accel-Buffering": "no"} if ms else {"Content-Length": str(parts * len(part))}
    return Response(generate(), headers=headers, content_type="application/octet-stream")


@blueprint.get("/file")
def file():
    """A file of `mb` megabytes, sent as views send theirs."""
    sparse = tempfile.TemporaryFile()  # noqa: SIM115 (the response closes it)
    sparse.truncate(bounded("mb", 1, LARGEST_MB) * 1024 * 1024)
    return send_file(sparse, mimetype="application/octet-stream")


@blueprint.route("/memory", methods=METHODS)
def memory():
    """Hold `mb` megabytes for `seconds`."""
    mb, seconds = bounded("mb", 1, LARGEST_MB), bounded("seconds", 0, LONGEST_MS // 1000)
    held = bytearray(mb * 1024 * 1024)
    # Touched page by page: memory that was only asked for is not used yet.
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(seconds)
    return {"mb": len(held) // 1024**2, "seconds": seconds, "worker": os.getpid()}


@blueprint.get("/error")
def error():
    raise RuntimeError("diagnostics: an error nobody handles")


@blueprint.get("/log")
def log():
    """Log `message` through the application's logger, and print it."""
    message = request.args.get("message", "diagnostics")
    current_app.logger.info("%s", message)
    sys.stdout.write(f"printed {message}\n")  # as print() does
    return {"message": message}


@blueprint.get("/status/<int:code>")
def status(code):
    if not 200 <= code <= 599:
        abort(400, "The code must be from 200 to 599.")
    if code >= 400:
        abort(code)
    return "", code


@blueprint.get("/session")
def session_value():
    """Store `value` when given; answer with what is stored."""
    if "value" in request.args:
        session["value"] = request.args["value"]
    return {"value": session.get("value")}


def signed(response):
    """Who answered, for tests that count what reached whom."""
    response.headers["X-Replica"] = socket.gethostname()
    response.headers["X-Version"] = current_app.config["APP_VERSION"]
    return response


def init_app(app):
    if app.config["APP_ENV"] == "testing":
        app.register_blueprint(blueprint)
        app.after_request(signed)
