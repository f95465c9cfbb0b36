"""503 for a request for which no thread came free in time; worker.py decides which."""

from flask import request
from werkzeug.exceptions import ServiceUnavailable

KEY = "webapp.overload"
# Seconds: as nginx says of its own 503 (nginx/templates/error-types.conf.template).
RETRY_AFTER = 5


def refuse():
    if KEY in request.environ:
        raise ServiceUnavailable(retry_after=RETRY_AFTER)


def init_app(app):
    app.before_request(refuse)
