import sys

from django.apps import AppConfig


class StreamSocialConfig(AppConfig):
    name = "streamsocial"
    verbose_name = "StreamSocial"

    def ready(self) -> None:
        # Other servers import `streamsocial.asgi`, which checks as well; runserver does so in a thread, where ending
        # the process is not possible.
        if "runserver" in sys.argv:
            from streamsocial.safety import require_secret_key

            require_secret_key()
