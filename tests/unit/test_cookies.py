"""Session cookies and the rotation of their key."""

from conftest import KEY

OLD = KEY[::-1]


def cookie(client, value="x", base_url="https://localhost"):
    answer = client.get(f"/diagnostics/session?value={value}", base_url=base_url)
    return answer.headers["Set-Cookie"]


def test_flags(client):
    name, *flags = cookie(client).split("; ")
    assert name.startswith("__Host-session=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(flags)
    assert not any(flag.startswith("Domain") for flag in flags)


def test_below_a_prefix_the_cookie_is_for_the_prefix(make_app):
    """The name __Host- requires Path=/, and two applications of a host would share the cookie."""
    client = make_app(APP_ENV="testing", SCRIPT_NAME="/shop").test_client()
    name, *flags = cookie(client, base_url="https://localhost/shop").split("; ")
    assert name.startswith("__Secure-session=")
    assert {"Secure", "Path=/shop"} <= set(flags)


def test_development_works_without_tls(make_app):
    client = make_app(APP_ENV="development").test_client()
    with client.session_transaction() as session:
        session["value"] = "x"
    (stored,) = client._cookies.values()
    assert (stored.key, stored.secure, stored.http_only) == ("session", False, True)


def test_a_session_survives_a_new_key_with_the_old_one_as_fallback(make_app):
    def value(client, sent):
        client.set_cookie("__Host-session", sent.split("=", 1)[1].split(";")[0], secure=True)
        return client.get("/diagnostics/session", base_url="https://localhost").json["value"]

    sent = cookie(make_app(APP_ENV="testing", SECRET_KEY=OLD).test_client(), "kept")
    rotated = make_app(APP_ENV="testing", SECRET_KEY_FALLBACKS=OLD).test_client()
    assert value(rotated, sent) == "kept"
    assert value(make_app(APP_ENV="testing").test_client(), sent) is None
