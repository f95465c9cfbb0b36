"""The application below a path, as in https://example.org/shop: SCRIPT_NAME=/shop.

Routes are written without the prefix, and url_for adds it (PEP 3333, SCRIPT_NAME). The internal
paths stay at the root, so that health checks are the same everywhere and a proxy that forwards
the prefix alone never shows them. Elsewhere nothing is found; the root leads to the start page.
"""

from flask import abort, redirect, request

from . import hosts

OUTSIDE = "webapp.outside"


class Prefix:
    """WSGI middleware that divides the path into SCRIPT_NAME and PATH_INFO."""

    def __init__(self, wsgi_app, prefix):
        self.wsgi_app = wsgi_app
        self.prefix = prefix

    def __call__(self, environ, start_response):
        # The whole path: some servers divide it themselves.
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        below = path.removeprefix(self.prefix)
        if path in hosts.INTERNAL_PATHS:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", path
        elif path.startswith(f"{self.prefix}/") and below not in hosts.INTERNAL_PATHS:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = self.prefix, below
        else:
            # Not its path, which may be that of a route or of a static file.
            environ["SCRIPT_NAME"], environ["PATH_INFO"], environ[OUTSIDE] = self.prefix, "/", path
        return self.wsgi_app(environ, start_response)


def init_app(app):
    prefix = app.config["SCRIPT_NAME"]
    if not prefix:
        return
    app.wsgi_app = Prefix(app.wsgi_app, prefix)

    @app.before_request
    def outside():
        if OUTSIDE not in request.environ:
            return None
        request.url_rule = None
        if request.environ[OUTSIDE] in ("/", prefix):
            query = request.query_string.decode("ascii", "replace")
            return redirect(f"{prefix}/?{query}" if query else f"{prefix}/", 307)
        return abort(404)
