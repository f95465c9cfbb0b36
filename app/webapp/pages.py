"""The sample: a page that shows the path of a visitor's request, and the JSON API behind it."""

import os
import socket

from flask import Blueprint, current_app, redirect, render_template, request

from . import request_id, static_files

blueprint = Blueprint("pages", __name__)

# For pages that are the same for everybody and set no cookie. For visitors without one, nginx asks
# for each address once a second at most, and gives out the old page for up to a minute more while
# the application is slow or away: nginx/templates/cache.conf.template.
SHARED = "public, max-age=1, stale-while-revalidate=60, stale-if-error=60"


@blueprint.get("/")
def index():
    return render_template("index.html"), {"Cache-Control": SHARED}


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
        "addons": config["ADDONS"],
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
