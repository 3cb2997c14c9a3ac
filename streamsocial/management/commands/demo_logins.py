"""`manage.py demo_logins`: the three logins of the demo. Passwords are read from standard input, never arguments."""

import json
import sys
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand, CommandError

from offsets.management.base import EXIT_REFUSED, errors_as_exit_status
from offsets.names import shortened

LOGINS = ("viewer", "operator", "admin")


class Command(BaseCommand):
    help = 'Create or update demo logins from JSON on standard input: {"viewer": "…", "operator": "…", "admin": "…"}.'
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            passwords = {name: str(password) for name, password in json.load(sys.stdin).items()}
            if unknown := set(passwords) - set(LOGINS):
                raise ValueError(f"unknown login {shortened(min(unknown))}")
        except (ValueError, AttributeError, RecursionError) as error:
            raise CommandError(
                f"Standard input must be a JSON object of passwords: {error}", returncode=EXIT_REFUSED
            ) from error
        with errors_as_exit_status():
            for name, password in passwords.items():
                self._save(name, password)

    @staticmethod
    def _save(name: str, password: str) -> None:
        user, _ = get_user_model().objects.get_or_create(username=name)
        # The admin site requires staff; the group decides what they may do there.
        user.is_staff = True
        user.is_superuser = name == "admin"
        if not user.check_password(password):
            user.set_password(password)
        user.save()
        group = Group.objects.filter(name=name).first()
        if group is not None:
            user.groups.set([group])
