"""The request id: taken from the proxy, or generated here; on every response and in every log line.

Behind this stack's nginx (X_ACCEL_REDIRECT=on), the response also carries what only the application
knows. nginx logs these headers and hides them from clients (nginx/templates/log.conf.template).
"""

import functools
import os
import re
import secrets
import socket

HEADER = "X-Request-ID"
KEY = "webapp.request_id"
VALID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

# The rule of the view, such as /orders/<int:number>; in the environ and on the response.
ROUTE = "webapp.route"
ROUTE_HEADER = "X-App-Route"
# HOSTNAME/PID: the container and, in it, the process.PID of the application's own lines.
WORKER_HEADER = "X-App-Worker"


@functools.cache
def ascii_only(route):
    return route.encode("ascii", "backslashreplace").decode()


class RequestId:
    """WSGI middleware that puts the id into the environ and on the response."""

    def __init__(self, wsgi_app, for_nginx):
        self.wsgi_app = wsgi_app
        self.for_nginx = for_nginx
        self.replica = socket.gethostname()

    def __call__(self, environ, start_response):
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not VALID.fullmatch(request_id):
            request_id = secrets.token_hex(16)  # the form of nginx's $request_id
        environ[KEY] = request_id

        def start(status, headers, exc_info=None):
            others = [header for header in headers if header[0].lower() != "x-request-id"]
            others.append((HEADER, request_id))
            if self.for_nginx:
                others.append((WORKER_HEADER, f"{self.replica}/{os.getpid()}"))
                if route := environ.get(ROUTE):
                    others.append((ROUTE_HEADER, ascii_only(route)))
            return start_response(status, others, exc_info)

        return self.wsgi_app(environ, start)


def init_app(app):
    app.wsgi_app = RequestId(app.wsgi_app, for_nginx=app.config["X_ACCEL_REDIRECT"])
