"""`make release` on one host: a new version under load, and back.

`make soak` has longer loads, and versions that are broken (tests/soak/test_release_for_long.py).
"""

from releases import follows_dns, ids, other_style, release_and_back


def test_a_release_and_the_way_back_lose_no_request(stack):
    with other_style(stack, "v2"):
        release_and_back(stack, requests=1_000)
    assert follows_dns(stack)


def test_what_runs_already_is_not_replaced(stack):
    stack.make("release")
    before = ids(stack)
    assert stack.make("release").stdout.splitlines()[-1] == "this version is running already"
    assert ids(stack) == before
    # Compose sees no difference in that.
    (stack.folder / "secrets/secret_key_fallbacks").touch()
    stack.make("release")
    assert not ids(stack) & before


def test_as_many_run_as_are_asked_for(stack):
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "app=2", "app")
    assert len(ids(stack)) == 2
    stack.make("release")
    assert len(ids(stack)) == 1


def test_what_the_running_nginx_has_otherwise_is_refused(stack):
    """It stays, and would pass on names that the new application refuses with 400."""
    before = ids(stack)
    for name, value in (("SERVER_NAME", "other.example"), ("MAX_BODY_SIZE", "1m")):
        answer = stack.make("release", check=False, **{name: value})
        assert f"error: nginx runs with another {name} -> make up\n" in answer.stderr
        assert ids(stack) == before
