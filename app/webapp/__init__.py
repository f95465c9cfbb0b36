"""The application factory."""

from functools import lru_cache
from types import FunctionType, MethodType
from weakref import WeakSet

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from . import (
    config,
    diagnostics,
    errors,
    event_streams,
    health,
    hosts,
    logs,
    metrics,
    overload,
    pages,
    prefix,
    request_id,
    static_files,
)


class App(Flask):
    """Keeps what Flask works out again for each request: a tenth of the request's CPU time."""

    def __init__(self, name):
        super().__init__(name)
        self.no_coroutines = WeakSet()
        self.session_interface = sessions = SecureCookieSessionInterface()
        sessions.get_signing_serializer = lru_cache(sessions.get_signing_serializer)

    def ensure_sync(self, func):
        if not isinstance(func, (FunctionType, MethodType)):
            return super().ensure_sync(func)
        if func not in self.no_coroutines:
            if (sync := super().ensure_sync(func)) is not func:
                return sync
            self.no_coroutines.add(func)
        return func


def create_app(overrides=None):
    """Make the WSGI application.

    overrides: mapping of variable names to strings that are read in place of the environment
    (tests); without it, the settings of this process.
    Raises config.ConfigError for bad overrides; a bad environment is reported on stderr and ends
    the process with exit code 78.
    """
    app = App(__name__)
    config.init_app(app, overrides)
    logs.init_app(app)
    errors.init_app(app)
    event_streams.init_app(app)
    health.init_app(app)
    metrics.init_app(app)
    overload.init_app(app)
    pages.init_app(app)  # the sample: put your own views in its place
    diagnostics.init_app(app)

    # WSGI middleware, from the innermost to the outermost.
    static_files.init_app(app)
    prefix.init_app(app)
    hosts.init_app(app)
    request_id.init_app(app)
    return app
