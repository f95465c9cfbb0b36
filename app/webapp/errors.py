"""One shape for every error, HTML or JSON by Accept.

JSON is problem details (RFC 9457) with the request id. A client that accepts anything, as curl
does, gets JSON below /api/ and HTML elsewhere.
"""

import errno
import socket

from flask import got_request_exception, json, render_template, request
from werkzeug.exceptions import HTTPException

from . import request_id, static_files

# Whatever went wrong on our side, its description was not written for the client.
OUR_FAULT = "The server could not answer this request. The request id leads us to the cause."

NO_WAY_OUT = (
    "In Docker, the application cannot call other hosts unless BACKEND_INTERNAL=false in .env"
)


def prefers_json():
    accept = request.accept_mimetypes
    as_json = max(accept["application/json"], accept["application/problem+json"])
    as_html = accept["text/html"]
    if as_json == as_html:
        return request.path.startswith("/api/")
    return as_json > as_html


def handle(error):
    """The response for an HTTPException, its headers kept (Allow, Retry-After, ...).

    Registered for HTTPException and not for Exception, which would hide crashes from Flask's
    own logging and from exporters; Flask hands those on as InternalServerError.
    """
    if error.code < 400:
        return error

    response = error.get_response()
    if error.response is not None:
        return response

    problem = {
        "title": error.name,
        "status": error.code,
        "detail": error.description if error.code < 500 else OUR_FAULT,
        "request_id": request.environ.get(request_id.KEY),
    }
    if prefers_json():
        response.data = json.dumps(problem) + "\n"
        response.content_type = "application/problem+json"
    else:
        response.data = render_template(
            "error.html", **problem, stylesheet=static_files.url("error.css")
        )
        response.content_type = "text/html; charset=utf-8"
    response.cache_control.no_store = True
    response.vary.add("Accept")
    return response


def explain(_, exception):
    """Add to the traceback why another host cannot be reached."""
    cause = exception
    while cause:
        unreachable = isinstance(cause, OSError) and cause.errno == errno.ENETUNREACH
        if unreachable or isinstance(cause, socket.gaierror):
            exception.add_note(NO_WAY_OUT)
            return
        cause = cause.__cause__ or cause.__context__


def init_app(app):
    app.register_error_handler(HTTPException, handle)
    got_request_exception.connect(explain, app)
