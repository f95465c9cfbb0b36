"""The application of the tutorials, without and with the metrics and the logging they add to it."""

import logging
import logging.handlers
import os
import time

from flask import Flask, request

app = Flask(__name__)

if os.environ.get("ARTICLE_EXTRAS"):
    from prometheus_flask_exporter import PrometheusMetrics

    # In each process its own: with four workers, /metrics is one worker's.
    PrometheusMetrics(app)
    app.logger.setLevel(logging.INFO)
    # Sends from the request's own thread, pickled.
    app.logger.addHandler(logging.handlers.SocketHandler("sink", 5000))

    @app.after_request
    def write(response):
        app.logger.info("%s %s %s", request.method, request.path, response.status_code)
        return response


@app.get("/hello")
def hello():
    return "hello\n"


@app.get("/wait")
def wait():
    time.sleep(0.05)
    return "waited\n"
