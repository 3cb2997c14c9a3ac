"""Kill a worker again and again at a failpoint, let another finish, and compare what was counted with the truth."""

import random
import signal
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import background, manage_json
from tests.support.truth import counts_of

#: Where a worker may die. Under exactly_once nothing happens between store and metrics, under at_most_once they are
#: counted last.
POINTS = {
    "exactly_once": ("before_sql", "before_commit", "after_commit"),
    "at_least_once": ("before_sql", "before_commit", "after_commit", "after_store"),
    "at_most_once": ("before_sql", "before_commit", "after_commit", "after_store", "before_settle"),
}
EVENTS_PER_KILL = 3000
_SMALL_COMMITS = {"FETCH_MAX_RECORDS": "200", "COMMIT_MAX_RECORDS": "200", "COMMIT_INTERVAL_MS": "10"}
# A dead member keeps its partitions for the session timeout; the embedded broker allows a short one.
_SHORT_SESSIONS = {"SESSION_TIMEOUT_MS": "2000", "HEARTBEAT_TIMEOUT_SECONDS": "2", "HEARTBEAT_INTERVAL_MS": "200"}


@dataclass(frozen=True)
class Cell:
    """One square of the matrix, and what became of its events. `expected_…` is what the mode says of itself."""

    semantics: str
    store: str
    point: str
    kills: int
    events: int
    lost: int
    duplicated: int
    #: What `verify_offsets` admits: records counted again, offsets claimed and never counted.
    said_duplicates: int
    said_claimed: int
    verified: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def as_promised(self) -> bool:
        """Exactly once: neither. At least once: duplicates as said. At most once: losses as said."""
        return (
            self.verified
            and self.duplicated == self.said_duplicates
            and self.lost == self.said_claimed
            and (self.semantics != "exactly_once" or self.lost == self.duplicated == 0)
            and (self.semantics != "at_least_once" or self.lost == 0)
            and (self.semantics != "at_most_once" or self.duplicated == 0)
        )


def run_cell(
    services: Mapping[str, str], folder: Path, semantics: str, store: str, point: str, *, kills: int, seed: int
) -> Cell:
    """Produce a backlog, kill `kills` workers at `point` in passages drawn from `seed`, finish, and compare."""
    name = f"crash-{uuid.uuid4().hex[:8]}"
    env = {
        **services,
        **_SMALL_COMMITS,
        **_SHORT_SESSIONS,
        "ENGAGEMENT_TOPIC": name,
        "ENGAGEMENT_GROUP": name,
        "PROCESSING_SEMANTICS": semantics,
        "OFFSET_STORE": store,
        "OFFSET_FILE_DIR": str(folder / "offset-files"),
        "CONSUMER_SLOTS": "1",
    }
    truth = folder / f"{name}-truth.csv"
    events = EVENTS_PER_KILL * (kills + 1)
    manage_json(
        env,
        *("produce_events", "--count", str(events), "--topic", name, "--partitions", "3", "--seed", str(seed)),
        *("--contents", "300", "--users", "500", "--truth", str(truth)),
    )
    draw = random.Random(f"{seed} {semantics} {store} {point}")
    killed = sum(_kill_one(env, folder, name, f"{point}=kill#{draw.randint(2, 6)}@", number) for number in range(kills))
    manage_json(env, "run_consumer", "--exit-when-caught-up")
    return _compare(env, folder, truth, semantics, store, point, killed, events)


def _kill_one(env: Mapping[str, str], folder: Path, name: str, failpoint: str, number: int) -> bool:
    """Whether the worker died as it was told to."""
    token = folder / f"{name}-{number}.token"
    token.touch()
    log = folder / f"{name}-{number}.log"
    with background(
        {**env, "FAILPOINTS": f"{failpoint}{token}"}, log, "run_consumer", "--exit-when-caught-up"
    ) as worker:
        status = worker.process.wait(120)
    assert status == -signal.SIGKILL, f"status {status}\n{worker.output()}"
    return True


def _compare(
    env: Mapping[str, str], folder: Path, truth: Path, semantics: str, store: str, point: str, kills: int, events: int
) -> Cell:
    name = env["ENGAGEMENT_GROUP"]
    export = folder / f"{name}-export.csv"
    manage_json(env, "engagement_totals", "--group", name, "--topic", name, "--export", str(export))
    verified = manage_json(env, "verify_offsets", "--group", name)
    wanted, counted = counts_of(truth), counts_of(export)
    return Cell(
        semantics,
        store,
        point,
        kills,
        events,
        lost=sum((wanted - counted).values()),
        duplicated=sum((counted - wanted).values()),
        said_duplicates=verified["promise"]["duplicates"],
        said_claimed=verified["promise"]["claimed_offsets"],
        verified=verified["ok"],
    )


def table(cells: list[Cell]) -> str:
    head = (
        f"{'semantics':<14} {'store':<9} {'killed at':<14} {'kills':>5} {'events':>9} {'lost':>6} {'twice':>6}"
        "  as promised"
    )
    lines = [
        f"{c.semantics:<14} {c.store:<9} {c.point:<14} {c.kills:>5} {c.events:>9,} {c.lost:>6,} {c.duplicated:>6,}  "
        f"{'yes' if c.as_promised else 'NO'}"
        for c in cells
    ]
    return "\n".join([head, *lines])
