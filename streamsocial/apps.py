from django.apps import AppConfig


class StreamSocialConfig(AppConfig):
    name = "streamsocial"
    verbose_name = "StreamSocial"
