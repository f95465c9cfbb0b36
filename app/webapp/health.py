"""Liveness and readiness.

/livez   the process answers
/readyz  it should get traffic: 200, or 503 with the reason

Ready means, by default, not draining: `touch /tmp/draining` in a container takes it out of
rotation ahead of a stop, and removing the file brings it back. A dependency becomes part of
readiness with three lines:

    @health.check
    def database():
        return None if pool.ping(timeout=0.5) else "database does not answer"

Think before adding one. An orchestrator stops routing to what is not ready and in the end
replaces it, so an outage of a database that all replicas share would take down every replica at
once, those pages included that need no database. Check what only this replica can have lost.
A check must answer well within the second that healthcheck.py waits.
"""

import os

from flask import Blueprint

DRAINING = "/tmp/draining"  # noqa: S108 (the container's own)

blueprint = Blueprint("health", __name__)
checks = []


def check(function):
    """Make a function part of readiness: it returns None, or what is wrong as a short string."""
    checks.append(function)
    return function


@check
def draining():
    return "draining" if os.path.exists(DRAINING) else None


@blueprint.get("/livez")
def livez():
    return answer("ok", 200)


@blueprint.get("/readyz")
def readyz():
    found = problems()
    return answer("; ".join(found), 503) if found else answer("ok", 200)


def problems():
    """What the checks find wrong, a short string each."""
    return [problem for function in checks if (problem := function())]


def answer(text, status):
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return f"{text}\n", status, headers


def init_app(app):
    app.register_blueprint(blueprint)
