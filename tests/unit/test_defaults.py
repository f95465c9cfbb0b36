"""A default stands in docker-compose.yml; what repeats it has to agree."""

import re

from conftest import APP, KEY
from webapp import config

ROOT = APP.parent
COMPOSE = "".join(
    file.read_text() for file in [ROOT / "docker-compose.yml", *ROOT.glob("*/docker-compose.yml")]
)
EXAMPLE = (ROOT / ".env.example").read_text()
IN_COMPOSE = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE))
IN_EXAMPLE = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


NO_FILE = {("CA_CERTIFICATES", "/dev/null"), ("PIP_CONFIG", "/dev/null")}


def test_every_variable_is_explained_with_its_default():
    assert IN_COMPOSE.items() - NO_FILE <= IN_EXAMPLE.items()


def test_a_variable_has_one_default_in_docker_compose_yml():
    assert len(set(re.findall(r"\$\{([A-Z_]+:-[^}]*)\}", COMPOSE))) == len(IN_COMPOSE)


def test_the_application_alone_has_the_same_defaults():
    """Apart from host names and port, which it cannot know alone, and from what nginx logs here."""
    others = ("SERVER_NAME", "HTTPS_PORT", "ACCESS_LOG")
    given = {name: value for name, value in IN_COMPOSE.items() if name not in others}
    assert config.load({"SECRET_KEY": KEY}) == config.load({"SECRET_KEY": KEY} | given)


def test_every_variable_that_the_application_reads_is_explained():
    source = (APP / "webapp/config.py").read_text()
    names = set(re.findall(r"read\.\w+\(\s*\"([A-Z_]+)\"", source)) - {
        "FLASK_DEBUG",
        "LOGSTASH_HOST",
    }
    assert len(names) > 8
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", EXAMPLE)] == []
