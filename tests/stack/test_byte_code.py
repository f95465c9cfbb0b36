"""No process of the application's container compiles a module: it could not keep the byte code."""

import re

import pytest

# -v: what is imported from where; nothing is written to the running application's folders.
SERVER = (
    "import pkgutil, serve, gunicorn.app.wsgiapp, gunicorn.workers.gthread, webapp\n"
    "for module in pkgutil.iter_modules(webapp.__path__, 'webapp.'): __import__(module.name)"
)


@pytest.mark.parametrize(
    "command",
    [("-c", SERVER), ("-I", "-S", "/app/healthcheck.py")],
    ids=["server", "health check"],
)
def test_every_imported_module_has_byte_code(stack, command):
    answer = stack.compose("exec", "--no-TTY", "app", "python", "-v", *command)
    sources = re.findall(r"^# code object from '?(.*?)'?$", answer.stderr, re.MULTILINE)
    assert len(sources) > 10
    assert [source for source in sources if not source.endswith(".pyc")] == []
