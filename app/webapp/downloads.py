"""Large files: sent by nginx where it is in front, so that no thread waits for their readers.

nginx sends a file of /data/downloads when a response says X-Accel-Redirect
(nginx/templates/internals.conf.template). docs/fork.md: "Large downloads".
"""

from urllib.parse import quote

from flask import current_app, request
from werkzeug.utils import send_from_directory

FOLDER = "/data/downloads"
LOCATION = "/x-accel"


def send(name, **options):
    """The response with a file.

    name: its path below FOLDER; it may come from a client. options: as those of flask.send_file,
    such as as_attachment=True. Raises NotFound when there is no such file in the folder.
    """
    options["response_class"] = current_app.response_class
    if not current_app.config["X_ACCEL_REDIRECT"]:
        return send_from_directory(FOLDER, name, request.environ, **options)
    # nginx compares If-None-Match and Range with the file's own.
    options |= {"use_x_sendfile": True, "conditional": False, "etag": False}
    response = send_from_directory(FOLDER, name, request.environ, **options)
    del response.headers["X-Sendfile"]
    response.headers["X-Accel-Redirect"] = f"{LOCATION}/{quote(name)}"
    return response
