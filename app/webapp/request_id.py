"""The request id: taken from the proxy, or made here; on every answer and in every log line."""

import re
import secrets

HEADER = "X-Request-ID"
KEY = "webapp.request_id"
VALID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class RequestId:
    """WSGI middleware that puts the id into the environ and on the response."""

    def __init__(self, wsgi_app):
        self.wsgi_app = wsgi_app

    def __call__(self, environ, start_response):
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not VALID.fullmatch(request_id):
            request_id = secrets.token_hex(16)  # the form of nginx's $request_id
        environ[KEY] = request_id

        def start(status, headers, exc_info=None):
            others = [header for header in headers if header[0].lower() != HEADER.lower()]
            return start_response(status, [*others, (HEADER, request_id)], exc_info)

        return self.wsgi_app(environ, start)


def init_app(app):
    app.wsgi_app = RequestId(app.wsgi_app)
