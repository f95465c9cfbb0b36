"""Plain `docker compose`, where `make` has made nothing but the secrets."""

import pytest
from clone import Clone, leftovers


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path / "clone")
    yield clone
    clone.remove()
    assert leftovers(clone.name) == []


def test_compose_up_needs_only_make_secrets(clone):
    environment = clone.build_environment()
    assert not (clone.folder / "secrets").exists()
    clone.make("secrets")
    clone.run("docker", "compose", "up", "--detach", "--build", "--wait", **environment)
    with clone.client() as client:
        assert client.get(clone.style_sheet()).status_code == 200
    before = clone.containers("app") + clone.containers("nginx")
    clone.make("up", **environment)
    assert clone.containers("app") + clone.containers("nginx") == before
