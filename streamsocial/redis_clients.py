"""One REDIS_URL for three clients: the offset store, the channel layer and Celery's broker. Pure.

Each of them reads TLS parameters in a way of its own, and Celery verifies no certificate unless it is told to. So the
parameters are taken out of the URL here, and given to each client with one meaning.
"""

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_CERTIFICATES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")

#: A Redis whose host has vanished is noticed within half a minute. The channel layer's reads wait up to five seconds
#: for a message.
ANSWER_SECONDS = 15.0
_ALIVE: dict[str, Any] = {"socket_connect_timeout": 5.0, "socket_keepalive": True, "health_check_interval": 10}


@dataclass(frozen=True, slots=True)
class RedisClients:
    """`url` has no TLS parameters left; `options` are those of every redis-py client."""

    url: str
    options: dict[str, Any]
    #: A host of channels_redis.
    channel_host: dict[str, Any]
    #: Celery's `broker_use_ssl`; None without TLS.
    broker_use_ssl: dict[str, Any] | None
    broker_transport_options: dict[str, Any]


def redis_clients(url: str) -> RedisClients:
    """Raises ValueError, naming the parameter of REDIS_URL, for an invalid value."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    tls_pairs = {name: value for name, value in pairs if name.startswith("ssl_")}
    rest = [(name, value) for name, value in pairs if not name.startswith("ssl_")]
    if tls_pairs and parts.scheme != "rediss":
        raise ValueError(f"REDIS_URL: {', '.join(sorted(tls_pairs))} needs a URL that begins with rediss://.")
    tls = _tls(tls_pairs) if parts.scheme == "rediss" else None
    plain = urlunsplit(parts._replace(query=urlencode(rest))) if tls_pairs else url
    # A Unix socket has no TCP parameters.
    alive = {} if parts.scheme == "unix" else _ALIVE
    return RedisClients(
        url=plain,
        options={**alive, **(tls or {})},
        channel_host={"address": plain, **alive, **(tls or {}), "socket_timeout": ANSWER_SECONDS},
        broker_use_ssl=tls,
        broker_transport_options={**alive, "socket_timeout": ANSWER_SECONDS},
    )


def _tls(pairs: dict[str, str]) -> dict[str, Any]:
    """Arguments of redis-py's TLS connection. Certificates and host names are checked by default."""
    known = {"ssl_cert_reqs", "ssl_check_hostname", *_FILES}
    if unknown := sorted(pairs.keys() - known):
        raise ValueError(f"REDIS_URL: unknown parameter {', '.join(unknown)}. Use {', '.join(sorted(known))}.")
    wanted = pairs.get("ssl_cert_reqs", "required")
    name = wanted.lower().removeprefix("cert_")
    if name not in _CERTIFICATES:
        raise ValueError(f"REDIS_URL: ssl_cert_reqs must be required, optional or none, not {wanted!r}.")
    hostname = pairs.get("ssl_check_hostname", "false" if name == "none" else "true").lower()
    if hostname not in (*_YES, *_NO):
        raise ValueError(f"REDIS_URL: ssl_check_hostname must be true or false, not {hostname!r}.")
    checked = {"ssl_cert_reqs": _CERTIFICATES[name], "ssl_check_hostname": hostname in _YES and name != "none"}
    return checked | {key: pairs[key] for key in _FILES if pairs.get(key)}
