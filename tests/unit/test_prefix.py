"""The site below a path prefix."""

import pytest
from django.templatetags.static import static
from django.urls import get_script_prefix, set_script_prefix

from streamsocial.environment import BASE_DIR, Environment
from streamsocial.prefix import WithoutPrefix, WithPrefix, without_prefix
from streamsocial.values import path_prefix
from tests.support.documents import text_of


@pytest.mark.parametrize(
    ("path", "prefix", "inside"),
    [
        ("/ws/dashboard/", "", "/ws/dashboard/"),
        ("/streamsocial/ws/dashboard/", "/streamsocial", "/ws/dashboard/"),
        ("/ws/dashboard/", "/streamsocial", "/ws/dashboard/"),
        ("/streamsocials/ws/", "/streamsocial", "/streamsocials/ws/"),
        ("/a/b/ws/", "/a/b", "/ws/"),
        ("/streamsocial", "/streamsocial", ""),
    ],
)
def test_a_path_is_the_same_whether_the_proxy_strips_the_prefix_or_not(path, prefix, inside):
    assert without_prefix(path, prefix) == inside


@pytest.mark.parametrize(
    ("router", "seen"),
    [(WithoutPrefix, ("", "/ws/dashboard/")), (WithPrefix, ("/streamsocial", "/streamsocial/ws/dashboard/"))],
    ids=["websockets", "HTTP"],
)
@pytest.mark.parametrize(("forced", "root_path"), [("/streamsocial", ""), (None, "/streamsocial")])
async def test_a_proxy_may_strip_the_prefix_or_not(settings, router, seen, forced, root_path):
    settings.FORCE_SCRIPT_NAME = forced
    calls = []

    async def application(scope, receive, send):
        calls.append((scope["root_path"], scope["path"]))

    for path in ("/streamsocial/ws/dashboard/", "/ws/dashboard/"):
        await router(application)({"root_path": root_path, "path": path}, None, None)

    assert calls == [seen] * 2


@pytest.mark.parametrize("router", [WithPrefix, WithoutPrefix])
async def test_without_a_prefix_paths_stay_as_they_are(settings, router):
    calls = []

    async def application(scope, receive, send):
        calls.append((scope["root_path"], scope["path"]))

    await router(application)({"root_path": "", "path": "/streamsocial/"}, None, None)

    assert calls == [("", "/streamsocial/")]


def test_static_urls_follow_the_prefix_of_the_request():
    before = get_script_prefix()
    try:
        assert static("favicon.svg") == "/static/favicon.svg"
        set_script_prefix("/streamsocial")
        assert static("favicon.svg") == "/streamsocial/static/favicon.svg"
    finally:
        set_script_prefix(before)


@pytest.mark.parametrize(("value", "prefix"), [("", ""), ("/", ""), ("/a", "/a"), ("/a/", "/a"), ("/a/b-c", "/a/b-c")])
def test_the_prefix_is_a_path_without_a_slash_at_its_end(tmp_path, value, prefix):
    environ = {"STACK_DIR": str(tmp_path), "URL_PREFIX": value}

    assert Environment(environ).text("URL_PREFIX", rule=path_prefix).rstrip("/") == prefix


@pytest.mark.parametrize("value", ["streamsocial", "//example.org", "https://example.org/a", "/a b", "/a/../b?c"])
def test_a_prefix_that_is_not_a_path_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="URL_PREFIX must be a path"):
        Environment({"STACK_DIR": str(tmp_path), "URL_PREFIX": value}).text("URL_PREFIX", rule=path_prefix)


def test_the_page_holds_no_address_that_begins_at_the_root_of_the_host():
    sources = [*(BASE_DIR / "static" / "js").rglob("*.js"), *(BASE_DIR / "templates").rglob("*.html")]
    starts = ('"/', "'/", "`/")
    # A comparison with the root, in `client.js`, is where the prefix itself comes from.
    allowed = {'dataset.root ?? "/"'}

    found = [
        f"{path.relative_to(BASE_DIR)}: {line.strip()}"
        for path in sources
        for line in text_of(path).splitlines()
        if any(start in line for start in starts) and not any(text in line for text in allowed)
    ]

    assert len(sources) > 40
    assert found == []
