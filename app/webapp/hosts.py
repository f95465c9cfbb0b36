"""Whom to believe about the client's address, the scheme and the host name."""

from werkzeug.middleware.proxy_fix import ProxyFix

# Asked by their container's address, not by name: Compose's health check, Prometheus, Kubernetes,
# the application's other containers.
INTERNAL_PATHS = frozenset({"/livez", "/readyz", "/metrics", "/hashed-files"})


# Werkzeug compares each preference with each type: 31 ms of CPU time for 24 kB, on an error page.
# A longer header than any browser's counts as absent: anything will do (RFC 9110, 12.5.1).
PREFERENCES = ("HTTP_ACCEPT", "HTTP_ACCEPT_LANGUAGE", "HTTP_ACCEPT_CHARSET", "HTTP_ACCEPT_ENCODING")
LONGEST_PREFERENCES = 1000


class Hosts:
    """WSGI middleware that spares internal paths Flask's check of the Host header."""

    def __init__(self, wsgi_app, trusted_hosts):
        self.wsgi_app = wsgi_app
        self.internal_host = trusted_hosts[0].lstrip(".") if trusted_hosts else "localhost"

    def __call__(self, environ, start_response):
        for name in PREFERENCES:
            if len(environ.get(name, "")) > LONGEST_PREFERENCES:
                del environ[name]
        if environ.get("PATH_INFO") in INTERNAL_PATHS:
            environ["HTTP_HOST"] = self.internal_host
        elif "HTTP_HOST" in environ:
            # Host names have no case (RFC 9110, 4.2.3); werkzeug.sansio.utils.host_is_trusted does.
            environ["HTTP_HOST"] = environ["HTTP_HOST"].lower()
        return self.wsgi_app(environ, start_response)


def bind_outside_requests(app, host):
    """Let url_for(_external=True) work in `flask shell`, in commands and in jobs.

    Not by Flask's SERVER_NAME, which would take the place of the visitor's host in requests.
    """
    of_request, port = app.create_url_adapter, app.config["PUBLIC_PORT"]

    def create_url_adapter(request):
        if request is not None or app.config["SERVER_NAME"]:
            return of_request(request)
        return app.url_map.bind(
            host if port == 443 else f"{host}:{port}",
            script_name=app.config["APPLICATION_ROOT"],
            url_scheme="http" if app.config["APP_ENV"] == "development" else "https",
        )

    app.create_url_adapter = create_url_adapter


def init_app(app):
    app.wsgi_app = middleware = Hosts(app.wsgi_app, app.config["TRUSTED_HOSTS"])
    bind_outside_requests(app, middleware.internal_host)
    if proxies := app.config["PROXY_COUNT"]:
        # The n-th value from the right is the one that our own outermost proxy wrote. Host and
        # prefix stay the client's and ours: no proxy of this stack overwrites those headers.
        app.wsgi_app = ProxyFix(
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=0, x_port=0, x_prefix=0
        )
