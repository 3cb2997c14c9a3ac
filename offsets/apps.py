from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OffsetsConfig(AppConfig):
    name = "offsets"
    verbose_name = "Offsets"

    def ready(self) -> None:
        from offsets import (
            checks,  # noqa: F401 - registers them
            permissions,
        )

        post_migrate.connect(permissions.grant_groups, sender=self, dispatch_uid="offsets.grant_groups")
