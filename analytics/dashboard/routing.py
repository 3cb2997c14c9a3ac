from django.urls import path, re_path

from analytics.dashboard.consumers import DashboardConsumer, UnknownPathConsumer

#: Relative to the site root.
WEBSOCKET_PATH = "ws/dashboard/"

websocket_urlpatterns = [
    path(WEBSOCKET_PATH, DashboardConsumer.as_asgi()),
    re_path(r"", UnknownPathConsumer.as_asgi()),
]
