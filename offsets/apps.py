from importlib import import_module

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OffsetsConfig(AppConfig):
    name = "offsets"
    verbose_name = "Offsets"

    def ready(self) -> None:
        from offsets import permissions

        import_module("offsets.checks")  # registers them
        post_migrate.connect(permissions.grant_groups, sender=self, dispatch_uid="offsets.grant_groups")
