"""In the place of app/wsgi.py: log lines shipped the usual way, by python-logstash's handler on the
root logger, in the thread of the request.
"""

import logging

import logstash
from webapp import create_app

app = create_app()
logging.getLogger().addHandler(logstash.TCPLogstashHandler("logstash", 5959, version=1))
