"""The sample: a page that shows what the stack did for its visitor, and the small API behind it."""

import os
import socket

from flask import Blueprint, current_app, redirect, render_template, request

from . import request_id, static_files

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def index():
    """The same for everybody and without a cookie, so that a proxy may keep it for a second."""
    return render_template("index.html"), {"Cache-Control": "public, max-age=1"}


@blueprint.get("/api/request")
def this_request():
    """What the application knows about this very request."""
    config = current_app.config
    answer = {
        "client_address": request.remote_addr,
        "scheme": request.scheme,
        "host": request.host,
        "request_id": request.environ.get(request_id.KEY),
        "replica": socket.gethostname(),
        "worker": os.getpid(),
        "version": config["APP_VERSION"],
        "environment": config["APP_ENV"],
        "rooms": config["ROOMS"],
    }
    return answer, {"Cache-Control": "no-store"}


@blueprint.get("/favicon.ico")
def favicon():
    """Where clients look that do not read the page's <link rel=icon>."""
    response = redirect(static_files.url("favicon.svg"))
    response.cache_control.max_age = 86_400
    return response


def init_app(app):
    app.register_blueprint(blueprint)
