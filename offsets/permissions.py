"""Who may view and who may act. Two groups, created and kept complete after every migration."""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, Permission, PermissionsMixin

VIEW = "offsets.view_partitioncheckpoint"
OPERATE = "offsets.operate_partitions"

VIEWER_GROUP = "viewer"
OPERATOR_GROUP = "operator"

#: What Django puts on a request or a websocket scope.
AnyUser = AbstractBaseUser | AnonymousUser


def can_view(user: AnyUser) -> bool:
    """May see the page, the API's reads and the websocket."""
    return _has(user, VIEW)


def can_operate(user: AnyUser) -> bool:
    """May pause, resume and recover partitions."""
    return _has(user, OPERATE)


def _has(user: AnyUser, permission: str) -> bool:
    return bool(user.is_authenticated and isinstance(user, PermissionsMixin) and user.has_perm(permission))


def grant_groups(sender: AppConfig, using: str = "default", **_signal: Any) -> None:
    """Give both groups the view permissions of the migrated app, and operators the right to act.

    Adds only: what an administrator changed otherwise stays as it is.
    """
    permissions = Permission.objects.using(using).filter(content_type__app_label=sender.label)
    views = list(permissions.filter(codename__startswith="view_"))
    operations = list(permissions.filter(codename=OPERATE.partition(".")[2]))
    for name, granted in ((VIEWER_GROUP, views), (OPERATOR_GROUP, views + operations)):
        group, _created = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*granted)
