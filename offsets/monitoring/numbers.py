"""The numbers in a status detail, filled in last: a page shows newer ones than those that it was judged by. Pure."""

from typing import NamedTuple

from offsets.monitoring.lag import LagTime
from offsets.text import counted, duration


class Numbers(NamedTuple):
    """What `{lag}`, `{behind}`, `{hidden}` and `{next}` in a detail stand for."""

    lag: int | None
    lag_time: LagTime
    hidden: int | None
    next_offset: int

    def fill(self, template: str) -> str:
        known, least = self.lag_time.seconds, self.lag_time.at_least_seconds
        values = {
            "{lag}": counted(self.lag or 0, "record"),
            "{behind}": duration(known) if known is not None else f"more than {duration(least)}",
            "{hidden}": counted(self.hidden or 0, "record"),
            "{next}": f"{self.next_offset:,}",
        }
        for name, value in values.items():
            template = template.replace(name, value)
        return template
