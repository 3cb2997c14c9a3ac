"""Who may open the websocket, and when it is closed."""

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session

from analytics.dashboard import consumers
from tests.support.websocket import application, close_code, cookie_of, next_snapshot, socket

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),
]


async def test_it_tells_strangers_to_log_in():
    async with socket() as browser:
        assert await close_code(browser) == 4401


async def test_it_does_not_take_an_invented_session():
    async with socket("a" * 32) as browser:
        assert await close_code(browser) == 4401


async def test_it_refuses_users_who_may_not_look():
    cookie = await sync_to_async(cookie_of)("nobody")
    async with socket(cookie) as browser:
        assert await close_code(browser) == 4403


@pytest.mark.parametrize("origin", [(b"origin", b"http://evil.example"), None])
async def test_it_refuses_pages_of_other_sites_before_anything_else(viewer_cookie, origin):
    communicator = WebsocketCommunicator(
        application(),
        "/ws/dashboard/",
        headers=[(b"cookie", f"sessionid={viewer_cookie}".encode())] + ([origin] if origin else []),
    )

    connected, _ = await communicator.connect()

    assert not connected
    await communicator.wait()


async def test_it_closes_any_other_path():
    async with socket(path="/ws/other/") as browser:
        assert await close_code(browser) == 4404


async def test_it_closes_soon_after_the_permission_is_taken_away(viewer_cookie, monkeypatch, django_user_model):
    monkeypatch.setattr(consumers, "ACCESS_CHECK_SECONDS", 0.05)
    async with socket(viewer_cookie) as browser:
        await next_snapshot(browser)
        user = await django_user_model.objects.aget(username="victor")
        await user.groups.aclear()
        assert await close_code(browser) == 4403


@pytest.mark.parametrize("end", ["logout", "deactivate", "new password"])
async def test_it_closes_soon_after_the_session_ends(viewer_cookie, monkeypatch, django_user_model, end):
    monkeypatch.setattr(consumers, "ACCESS_CHECK_SECONDS", 0.05)
    async with socket(viewer_cookie) as browser:
        await next_snapshot(browser)
        if end == "logout":
            await Session.objects.all().adelete()
        else:
            changes = {"is_active": False} if end == "deactivate" else {"password": "!another"}
            await django_user_model.objects.filter(username="victor").aupdate(**changes)
        assert await close_code(browser) == 4401


def test_it_is_given_a_session_that_names_the_user(viewer_cookie):
    """Guards the tests above: a cookie that names nobody would close every socket for the wrong reason."""
    assert SESSION_KEY in Session.objects.get(pk=viewer_cookie).get_decoded()
