#!/usr/bin/env python
"""Django's command line for StreamSocial."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamsocial.settings")
    from django.core.management import execute_from_command_line
    from django.db import InterfaceError, OperationalError

    try:
        execute_from_command_line(sys.argv)
    except (OperationalError, InterfaceError) as error:  # Django's own commands; ours say so themselves
        print(f"PostgreSQL is not available: {' '.join(str(error).split())}. Check DATABASE_URL.", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
