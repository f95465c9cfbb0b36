"""Static files: names with a content hash, compressed, cached for a year.

`flask --app digest digest compile`, run while the image is built, writes the hashed and compressed
copies and cache_manifest.json. Templates say static_url_for("static", filename=...), which gives
the plain name where no manifest exists, as in development.
"""

import mimetypes
import os

from flask import abort, current_app
from flask_static_digest import FlaskStaticDigest
from whitenoise import WhiteNoise

from . import peer_files

# nginx has the same table. Also for what Flask guesses (send_file): an image of Python has none.
MIME_TYPES = os.path.join(os.path.dirname(__file__), "mime.types")
mimetypes.init([MIME_TYPES])


def types_by_extension():
    table = mimetypes.MimeTypes()
    table.types_map[True].clear()
    table.read(MIME_TYPES)
    return table.types_map[True]


class StaticFiles(WhiteNoise):
    """WSGI middleware that serves the folder as it was at start; other names go to Flask."""

    FOREVER = 365 * 24 * 60 * 60  # RFC 9111, 1.2.2 and the customary upper bound of a year

    def __init__(self, wsgi_app, root, prefix, hashed_names):
        self.hashed_urls = {f"/{prefix.strip('/')}/{name}" for name in hashed_names}
        super().__init__(wsgi_app, max_age=60, allow_all_origins=False)
        self.media_types.types_map = types_by_extension()
        self.add_files(root, prefix)
        self.files.pop(f"/{prefix.strip('/')}/cache_manifest.json", None)

    def update_files_dictionary(self, root, prefix):
        """As WhiteNoise's, which a link that leads nowhere ends: an editor's lock, for one."""
        paths = (
            os.path.join(folder, name)
            for folder, _, names in os.walk(root, followlinks=True)
            for name in names
        )
        files = {path: os.stat(path) for path in paths if os.path.isfile(path)}
        for path in files:
            url = prefix + path.removeprefix(root)
            self.add_file_to_dictionary(url, path, stat_cache=files)

    def immutable_file_test(self, path, url):
        return url in self.hashed_urls


def as_copy(headers, path, url):
    """A compromised container can offer any file: none of them runs as a page of this site."""
    headers["Content-Security-Policy"] = "sandbox"


def not_found(filename):
    abort(404)


def url(filename):
    """The address of a static file where url_for has no host to go by, as in error pages."""
    manifest = current_app.extensions["static_manifest"]
    prefix = current_app.config["SCRIPT_NAME"]
    return f"{prefix}{current_app.static_url_path}/{manifest.get(filename, filename)}"


def init_app(app):
    digest = FlaskStaticDigest(app)
    if app.config["APP_ENV"] == "development":
        digest.manifests.clear()  # a manifest left behind would hide what is being edited
    manifest = app.extensions["static_manifest"] = digest.manifests.get("static", {})
    if app.config["APP_ENV"] != "development":
        copies = peer_files.ages()
        app.wsgi_app = StaticFiles(
            app.wsgi_app, app.static_folder, app.static_url_path, [*manifest.values(), *copies]
        )
        if copies:
            app.wsgi_app.add_headers_function = as_copy
            app.wsgi_app.add_files(peer_files.folder, app.static_url_path)
        # Flask's own view would serve what else lies in the folder, the manifest for one.
        app.view_functions["static"] = not_found
    if app.config["PEERS"]:
        names = dict.fromkeys(manifest.values(), 0)
        app.add_url_rule(peer_files.PATH, view_func=lambda: {**peer_files.ages(), **names})
