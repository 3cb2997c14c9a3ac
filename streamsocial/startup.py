"""How every process begins: with settings that can work, or with one sentence and exit status 2."""

import sys

from django.conf import settings

from streamsocial.environment import InvalidSettingError

#: Exit status of a process whose settings are invalid.
REFUSED = 2


def load_settings() -> None:
    """Read the settings; end the process if a variable has an invalid value."""
    try:
        _ = settings.INSTALLED_APPS
    except InvalidSettingError as error:
        _refuse(str(error))


def refuse_bad_settings() -> None:
    """End the process if the settings cannot work together. The applications must be loaded."""
    import django

    django.setup()
    from offsets.checks import refused_settings

    if reason := refused_settings():
        _refuse(reason)


def _refuse(reason: str) -> None:
    # Celery has replaced sys.stderr by its logger when beat starts.
    print(reason, file=sys.__stderr__)
    sys.exit(REFUSED)
