"""Starts gunicorn: `python serve.py` takes gunicorn's options and reads gunicorn.conf.py beside it.

The settings are checked before gunicorn is imported, because gunicorn/config.py (27.0.1) calls
int(os.environ["WEB_CONCURRENCY"]) during its import: "many" would be a traceback, and so would
the empty string that Compose passes for a variable nobody has set.
"""

import os
import signal
import sys

# The kernel drops what process 1 has no handler for (pid_namespaces(7)). Until gunicorn has some,
# which takes seconds on a busy machine, a stop would wait for all of stop_grace_period.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import worker_slots  # noqa: E402, F401 (before the application makes metrics)
from webapp import config  # noqa: E402

os.chdir(os.path.dirname(os.path.abspath(__file__)))
config.from_environment()
if not os.environ.get("WEB_CONCURRENCY", "").strip():
    os.environ.pop("WEB_CONCURRENCY", None)

from gunicorn.app.wsgiapp import run  # noqa: E402

if __name__ == "__main__":
    run()
