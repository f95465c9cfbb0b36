"""gunicorn's logger: its own messages and, with ACCESS_LOG=on, an access line a request."""

import logging
from datetime import timedelta

from gunicorn.glogging import Logger

from . import config, hosts, logs

MICROSECOND = timedelta(microseconds=1)


class AccessLogger(Logger):
    """Set as logger_class in gunicorn.conf.py.

    A class and not access_log_format, where a client that sends a quote or a backslash in a
    header breaks the line.
    """

    # In place of the base class's property.
    access_log_enabled = True

    def __init__(self, cfg):
        super().__init__(cfg)
        # The base class turns it off, and gives each logger a handler of its own in setup().
        self.error_log.propagate = self.access_log.propagate = True

    def setup(self, cfg):
        settings = config.from_environment()
        self.cfg = cfg
        self.access_log_enabled = settings["ACCESS_LOG"]
        logs.configure(settings)
        if settings["LOG_FORMAT"] == "json":
            logs.capture_prints()

    def access(self, resp, req, environ, request_time):
        log = self.access_log
        if not self.access_log_enabled or not log.isEnabledFor(logging.INFO):
            return
        if environ.get("PATH_INFO") in hosts.INTERNAL_PATHS:
            return
        fields = logs.request_fields(environ)
        # "200 OK" from an application; None when it failed before it began to answer.
        status = int(resp.status[:3]) if resp.status else 500
        fields["http"]["response"] = {"status_code": status, "body": {"bytes": resp.sent}}
        fields["event"] = {
            "dataset": "app.access",
            "duration": (request_time // MICROSECOND) * 1000,
        }
        if agent := environ.get("HTTP_USER_AGENT"):
            fields["user_agent"] = {"original": logs.clip(agent)}

        # Made without Logger.info, which searches the stack for the caller's line.
        path = fields["url"]["path"]
        text = f"{fields['http']['request']['method']} {logs.clip(path, 256)} {status}"
        record = log.makeRecord(log.name, logging.INFO, "", 0, text, (), None)
        record.ecs = fields
        log.handle(record)
