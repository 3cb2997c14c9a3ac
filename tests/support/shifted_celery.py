"""`python -m tests.support.shifted_celery FILE beat …`: Celery on a machine whose clock is off by the seconds in FILE.

The file is read at each look at the clock, so that a test can set the clock while the process runs.
"""

import os
import sys
from datetime import datetime, timedelta
from pathlib import Path


def main(shift: Path, arguments: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamsocial.settings")
    from streamsocial.celery import app

    exact = app.loader.now

    def now(utc: bool = True) -> datetime:
        moment: datetime = exact(utc=utc)
        return moment + timedelta(seconds=float(shift.read_text()))

    # What the scheduler and the time stamps of messages are made from.
    vars(app.loader)["now"] = now
    app.start(argv=arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
