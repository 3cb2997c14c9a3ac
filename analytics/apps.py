from importlib import import_module

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AnalyticsConfig(AppConfig):
    name = "analytics"
    verbose_name = "Engagement analytics"

    def ready(self) -> None:
        from offsets import permissions

        import_module("analytics.checks")  # registers them
        post_migrate.connect(permissions.grant_groups, sender=self, dispatch_uid="analytics.grant_groups")
