"""Settings from the environment and from secret files, checked at start."""

import functools
import os
import re
import secrets
import sys

EX_CONFIG = 78  # sysexits(3)

# In memory, shared with a log forwarder (log_files.py).
LOG_FOLDER = "/var/log/shipping"

ENVIRONMENTS = ("production", "development", "testing")
LOG_FORMATS = ("json", "text")
LOG_LEVELS = ("debug", "info", "warning", "error")

NEW_KEY = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
KEY_LENGTH = 32
PLACEHOLDER = re.compile(
    r"change.?me|default|development|dummy|example|insecure|password|placeholder|replace|secret|"
    r"todo.?todo|unsafe|your.?key",
    re.IGNORECASE,
)
# RFC 1123, 2.1; a leading dot takes in the subdomains, in nginx's server_name and in Werkzeug.
HOST_NAME = re.compile(
    r"\.?(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII | re.IGNORECASE,
)
# Segments of unreserved characters (RFC 3986, 2.3), none hidden, and not the internal paths, for
# which nginx returns 404. As in nginx/entrypoint/05-settings.envsh.
SCRIPT_NAME = re.compile(
    r"(?!/(?:hashed-files|healthz|livez|metrics|readyz)(?:/|\Z))(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*",
    re.ASCII,
)
SIZE = re.compile(r"([0-9]{1,12})([kmg]?)", re.IGNORECASE)
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class ConfigError(ValueError):
    """What is wrong with the settings; `problems` holds one line for each."""

    def __init__(self, problems):
        super().__init__("; ".join(problems))
        self.problems = problems


class Reader:
    """Reads variables and collects what is wrong, so that one start shows every mistake."""

    def __init__(self, environ):
        self.environ = environ
        self.problems = []

    def refuse(self, name, problem):
        self.problems.append(f"webapp: {name}: {problem}")

    def text(self, name, default=None):
        """An empty variable counts as unset: Compose passes one for each that nobody has set."""
        return self.environ.get(name, "").strip() or default

    def choice(self, name, choices, default):
        value = self.text(name, default)
        if value not in choices:
            self.refuse(name, f"{value!r} is unknown; set it to one of: {', '.join(choices)}")
            return default
        return value

    def number(self, name, default, low, high):
        value = self.text(name)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,9}", value) and low <= int(value) <= high:
            return int(value)
        self.refuse(name, f"{value!r} is not a whole number from {low} to {high}; set {name}={low}")
        return default

    def size(self, name, default):
        """A size in nginx's syntax, in bytes. 0 is refused: nginx takes it for "no limit"."""
        value = self.text(name, default)
        match = SIZE.fullmatch(value)
        if match and (size := int(match[1]) * UNITS[match[2].lower()]):
            return size
        self.refuse(name, f"{value!r} is not a size; write digits and k, m or g: {name}={default}")
        return None

    def hosts(self, name):
        names = re.split(r"[\s,]+", self.text(name, "").lower())
        names = [host for host in names if host]
        for host in names:
            if ":" in host:
                self.refuse(name, f"{host!r} has a port or is a URL; write the bare host name")
            elif not HOST_NAME.fullmatch(host):
                self.refuse(
                    name,
                    f"{host!r} is not a host name; write names like example.com, separated by"
                    " spaces (xn--... for other alphabets)",
                )
        return names

    def host(self, name):
        names = self.hosts(name)
        if len(names) > 1:
            self.refuse(name, f"has {len(names)} names; write one")
        return names[0] if names else None

    def prefix(self, name):
        value = self.text(name, "")
        if not SCRIPT_NAME.fullmatch(value):
            self.refuse(
                name,
                f"{value!r} is not a path like /shop, or is an internal one; begin with a slash and"
                f" end without one: {name}=/shop",
            )
        return value

    def folder(self, name, path):
        """Is it on? Then the folder has to be there, and writable."""
        on = self.choice(name, ("off", "on"), "off") == "on"
        if on and not os.access(path, os.W_OK):
            self.refuse(name, f"is on, and {path} cannot be written by uid {os.getuid()}; mount it")
        return on

    def secret(self, name):
        """The variable, or the content of the file that NAME_FILE names; "" where there is none.

        None: it could not be read, and that has been reported.
        """
        value, path = self.text(name, ""), self.text(f"{name}_FILE")
        if path is None:
            return value
        if value:
            self.refuse(name, f"is set, and so is {name}_FILE; unset one of the two")
            return None
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().strip()
        except IsADirectoryError:
            # What the engine makes of a bind mount whose source does not exist.
            problem = f"{path!r} is a directory; make the file on the host and start again"
        except OSError as error:
            problem = f"cannot read {path!r} ({error.strerror}); it must exist and be readable"
            problem += f" by uid {os.getuid()}"
        except ValueError:
            problem = f"{path!r} is not UTF-8 text; write a new key into it: {NEW_KEY}"
        self.refuse(f"{name}_FILE", problem)
        return None

    def check_key(self, name, key):
        if key is None:
            return
        if not key:
            self.refuse(
                name, f"is missing; set {name} or {name}_FILE to a key made with: {NEW_KEY}"
            )
        elif (
            PLACEHOLDER.search(key)
            or len(set(key)) < 6
            or re.fullmatch(r"(.{1,12})\1+.{0,11}", key)
        ):
            self.refuse(name, f"is a placeholder; make a key with: {NEW_KEY}")
        elif len(key) < KEY_LENGTH:
            self.refuse(
                name,
                f"is too short ({len(key)} of at least {KEY_LENGTH} characters);"
                f" make a key with: {NEW_KEY}",
            )


def load(environ):
    """Read and check all settings.

    environ: mapping of variable names to strings.
    Returns a dict of Flask's own configuration keys and of ours, ready for app.config.
    Raises ConfigError naming everything that is wrong.
    """
    read = Reader(environ)

    app_env = read.choice("APP_ENV", ENVIRONMENTS, "production")
    strict = app_env != "development"

    # The same reading as flask.helpers.get_debug_flag, which `flask run --debug` goes through.
    debug = read.text("FLASK_DEBUG", "0").lower() not in ("0", "false", "no")
    if debug and strict:
        read.refuse("FLASK_DEBUG", f"debug mode is refused when APP_ENV is {app_env}; unset it")

    key = read.secret("SECRET_KEY")
    fallbacks = re.split(r"[\s,]+", read.secret("SECRET_KEY_FALLBACKS") or "")
    fallbacks = [old for old in fallbacks if old]
    if strict:
        read.check_key("SECRET_KEY", key)
        # An old key still opens sessions: one that can be guessed lets anybody in.
        for old in fallbacks:
            read.check_key("SECRET_KEY_FALLBACKS", old)

    if read.text("LOGSTASH_HOST"):
        read.refuse("LOGSTASH_HOST", "is read by logstash/forwarder now; set SHIP_LOGS=on here")
    max_body = read.size("MAX_BODY_SIZE", "10m")
    prefix = read.prefix("SCRIPT_NAME")
    cookie_prefix = ("__Secure-" if prefix else "__Host-") if strict else ""

    settings = {
        "APP_ENV": app_env,
        "APP_VERSION": read.text("APP_VERSION", "dev"),
        "APP_COMMIT": read.text("APP_COMMIT", "unknown"),
        "SERVICE_NAME": read.text("SERVICE_NAME", "webapp"),
        # off where this stack's nginx is in front, whose line has the same and more.
        "ACCESS_LOG": read.choice("ACCESS_LOG", ("on", "off"), "on") == "on",
        "LOG_FORMAT": read.choice("LOG_FORMAT", LOG_FORMATS, "json"),
        "LOG_LEVEL": read.choice("LOG_LEVEL", LOG_LEVELS, "info"),
        "SHIP_LOGS": read.folder("SHIP_LOGS", LOG_FOLDER),
        "PEERS": read.host("PEERS"),
        # The one that visitors type, for links outside of requests (hosts.py).
        "PUBLIC_PORT": read.number("PUBLIC_PORT", None, 1, 65535)
        or read.number("HTTPS_PORT", 443, 1, 65535),
        # For Flask-CORS (docs/fork.md).
        "CORS_ORIGINS": read.text("CORS_ORIGINS", "").replace(",", " ").split(),
        "PORT": read.number("PORT", 8000, 1, 65535),
        "PROXY_COUNT": read.number("PROXY_COUNT", 0, 0, 16),
        "X_ACCEL_REDIRECT": read.choice("X_ACCEL_REDIRECT", ("off", "on"), "off") == "on",
        "WEB_CONCURRENCY": read.number("WEB_CONCURRENCY", None, 1, 1024),
        "WEB_THREADS": read.number("WEB_THREADS", 4, 1, 1024),
        "ADDONS": addons(environ),
        "SECRET_KEY": key or secrets.token_hex(32),
        "SECRET_KEY_FALLBACKS": fallbacks,
        "TRUSTED_HOSTS": read.hosts("SERVER_NAME") or None,
        "SCRIPT_NAME": prefix,
        # Flask's own, for the path of cookies and for url_for outside of requests.
        "APPLICATION_ROOT": prefix or "/",
        "MAX_CONTENT_LENGTH": max_body,
        # Fields of a multipart form are held in memory, files are not.
        "MAX_FORM_MEMORY_SIZE": min(max_body or 0, read.size("MAX_FORM_MEMORY_SIZE", "500k") or 0),
        # The __Host- prefix makes browsers refuse the cookie without Secure, with a Domain or
        # from a subdomain (RFC 6265bis, 4.1.3.2); without TLS they would refuse it altogether.
        # It requires Path=/, where applications below two prefixes of a host share one cookie.
        "SESSION_COOKIE_NAME": f"{cookie_prefix}session",
        "SESSION_COOKIE_SECURE": strict,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
    }
    if read.problems:
        raise ConfigError(read.problems)
    return settings


def addons(environ):
    """The optional add-ons switched on, from ADDON_<NAME> variables: sorted lower-case names."""
    return sorted(
        name.removeprefix("ADDON_").lower()
        for name, value in environ.items()
        if name.startswith("ADDON_") and value.strip().lower() not in ("", "off", "0")
    )


@functools.cache
def from_environment():
    """The settings of this process, read once.

    gunicorn's master reads them and its workers inherit them, so that all workers sign sessions
    with the same key even while a secret file is being replaced.
    Bad settings: a line each on stderr, and exit code 78.
    """
    try:
        return load(os.environ)
    except ConfigError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        raise SystemExit(EX_CONFIG) from None


def init_app(app, overrides=None):
    settings = from_environment() if overrides is None else load({**os.environ, **overrides})
    app.config.from_mapping(settings)
