"""What an error of a service means: the one rule that workers, tasks, commands and the website follow. Pure.

`offsets.postgresql` applies it to PostgreSQL's errors where Django translates them, `offsets.kafka.errors` to Kafka's
and `offsets.stores.redis` to those of Redis.
"""

import enum


class Meaning(enum.Enum):
    """What to do about an error."""

    #: The service or the session is gone. Connect again and repeat.
    LOST = enum.auto()
    #: The service responds and does not serve now: read-only, full, shutting down, no access. Wait and repeat.
    REFUSING = enum.auto()
    #: Another transaction was in the way. Repeat.
    CONTENDED = enum.auto()
    #: The data is rejected, and would be again.
    DATA = enum.auto()
    #: Anything else: a wrong statement or a wrong program.
    BUG = enum.auto()

    @property
    def unavailable(self) -> bool:
        """Whether to wait and to repeat the whole transaction."""
        return self in (Meaning.LOST, Meaning.REFUSING, Meaning.CONTENDED)


READ_ONLY = "25006"
#: By SQLSTATE, or by its class: its first two characters.
_POSTGRES = {
    "08": Meaning.LOST,  # connection exception, and what a pooler reports of its server
    "57": Meaning.LOST,  # shutdown, crash, cannot connect now, query canceled, idle session timeout
    "57P01": Meaning.REFUSING,  # admin shutdown
    "57P02": Meaning.REFUSING,  # crash shutdown
    "57P03": Meaning.REFUSING,  # cannot connect now
    "25P03": Meaning.LOST,  # idle-in-transaction timeout
    "25P04": Meaning.LOST,  # transaction timeout
    "26": Meaning.LOST,  # invalid statement name: a pooler gave this session another server connection
    "42P05": Meaning.LOST,  # duplicate prepared statement: likewise
    READ_ONLY: Meaning.REFUSING,  # read-only transaction, or a standby
    "28": Meaning.REFUSING,  # authentication
    "3D": Meaning.REFUSING,  # no such database
    "42501": Meaning.REFUSING,  # insufficient privilege
    "53": Meaning.REFUSING,  # disk full, out of memory, too many connections
    "58": Meaning.REFUSING,  # system error
    "F0": Meaning.REFUSING,  # configuration file error
    "XX": Meaning.REFUSING,  # internal error, corrupted data or index
    "40": Meaning.CONTENDED,  # deadlock, serialization failure
    "55": Meaning.CONTENDED,  # lock not available, object in use
    "21": Meaning.DATA,  # cardinality violation
    "22": Meaning.DATA,  # data exception
    "23": Meaning.DATA,  # integrity constraint violation
    "44": Meaning.DATA,  # WITH CHECK OPTION violation
    "54": Meaning.DATA,  # program limit exceeded: a value that no index row holds
}
#: Errors without a SQLSTATE, which the client raises itself, by the class of the DB-API.
_CLIENT = {
    "InterfaceError": Meaning.LOST,
    "OperationalError": Meaning.LOST,
    # The answer does not belong to the question: "received 2 results from command 'COMMIT'".
    "InternalError": Meaning.LOST,
    "DataError": Meaning.DATA,
    "IntegrityError": Meaning.DATA,
}


def of_postgres(sqlstate: str | None, kind: str, *, usable: bool = True) -> Meaning:
    """`kind` is the error's class of the DB-API; `usable`, whether its session can go on."""
    meaning = _POSTGRES.get(sqlstate or "") or _POSTGRES.get((sqlstate or "")[:2])
    if meaning is None:
        meaning = Meaning.BUG if sqlstate else _CLIENT.get(kind, Meaning.BUG)
    return meaning if usable or meaning.unavailable else Meaning.LOST


#: The first word of a Redis error reply.
_REDIS = {
    "LOADING": Meaning.LOST,
    "MASTERDOWN": Meaning.LOST,
    "CLUSTERDOWN": Meaning.LOST,
    "TRYAGAIN": Meaning.CONTENDED,
    "BUSY": Meaning.CONTENDED,
    "UNBLOCKED": Meaning.CONTENDED,
    "OOM": Meaning.REFUSING,
    "READONLY": Meaning.REFUSING,
    "MISCONF": Meaning.REFUSING,
    "NOREPLICAS": Meaning.REFUSING,
    "NOAUTH": Meaning.REFUSING,
    "NOPERM": Meaning.REFUSING,
    "WRONGPASS": Meaning.REFUSING,
    "WRONGTYPE": Meaning.DATA,
}


def of_redis(reply: str | None) -> Meaning:
    """`reply` is the text of an error reply; None where there was no reply."""
    if reply is None:
        return Meaning.LOST
    # redis-py names the command of a pipeline before the reply.
    words = reply.rpartition("caused error: ")[2].lstrip("-").split(" ", 1)
    return _REDIS.get(words[0], Meaning.BUG)
