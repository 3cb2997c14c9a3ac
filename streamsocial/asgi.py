import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

from streamsocial.startup import load_settings, refuse_bad_settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamsocial.settings")
load_settings()
# Loads the applications; the imports below need them.
http_application = get_asgi_application()
refuse_bad_settings()

from analytics.dashboard.routing import websocket_urlpatterns  # noqa: E402
from streamsocial.prefix import WithoutPrefix, WithPrefix  # noqa: E402
from streamsocial.safety import require_secret_key  # noqa: E402

require_secret_key()

application = ProtocolTypeRouter(
    {
        "http": WithPrefix(http_application),
        # Check the origin before reading a session: browsers send cookies to sockets of any origin.
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(WithoutPrefix(URLRouter(websocket_urlpatterns)))),
    }
)
