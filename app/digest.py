"""For `flask --app digest digest compile` while the image is built (webapp/static_files.py).

Without create_app(), which may need settings or a database that a build does not have.
"""

from flask import Flask
from flask_static_digest import FlaskStaticDigest

app = Flask(__name__, static_folder="webapp/static")
FlaskStaticDigest(app)
