"""One meaning of REDIS_URL for the offset store, the channel layer and the broker."""

import ssl
from typing import Any

import pytest
import redis
from celery import Celery
from channels_redis.utils import create_pool

from streamsocial.redis_clients import RedisClients, redis_clients

CHECKED = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("", CHECKED),
        ("?ssl_cert_reqs=required", CHECKED),
        ("?ssl_cert_reqs=CERT_REQUIRED", CHECKED),
        ("?ssl_cert_reqs=optional", CHECKED | {"ssl_cert_reqs": ssl.CERT_OPTIONAL}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}),
        ("?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}),
        ("?ssl_check_hostname=false", CHECKED | {"ssl_check_hostname": False}),
        ("?ssl_ca_certs=/etc/ca.pem", CHECKED | {"ssl_ca_certs": "/etc/ca.pem"}),
        (
            "?ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
            CHECKED | {"ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem"},
        ),
    ],
)
def test_all_clients_check_certificates_alike(query: str, tls: dict[str, Any]) -> None:
    clients = redis_clients(f"rediss://:secret@cache.example:6380/1{query}")
    assert clients.url == "rediss://:secret@cache.example:6380/1"
    for arguments in _arguments(clients):
        assert {name: value for name, value in arguments.items() if name.startswith("ssl_")} == tls


def _arguments(clients: RedisClients) -> list[dict[str, Any]]:
    """What the three clients give to redis-py's connections."""
    store = redis.Redis.from_url(clients.url, **clients.options).connection_pool
    layer = create_pool(clients.channel_host)
    app = Celery(broker=clients.url, set_as_current=False)
    app.conf.broker_use_ssl = clients.broker_use_ssl
    app.conf.broker_transport_options = clients.broker_transport_options
    connection = app.connection_for_write()
    broker = _channel_of(connection)._connparams()
    assert issubclass(store.connection_class, redis.SSLConnection)
    assert layer.connection_class.__name__ == "SSLConnection"
    assert issubclass(broker["connection_class"], redis.SSLConnection)
    return [store.connection_kwargs, layer.connection_kwargs, broker]


def _channel_of(connection: Any) -> Any:
    """kombu's channel without its constructor, which connects."""
    channel = object.__new__(connection.transport.Channel)
    channel.connection = connection.transport
    for name, value in connection.transport_options.items():
        setattr(channel, name, value)
    return channel


def test_without_tls_no_client_has_parameters_of_it() -> None:
    clients = redis_clients("redis://cache.example:6379/0?protocol=2")
    assert clients.url == "redis://cache.example:6379/0?protocol=2"
    assert clients.broker_use_ssl is None
    for arguments in (clients.options, clients.channel_host):
        assert not [name for name in arguments if name.startswith("ssl_")]


@pytest.mark.parametrize("name", ["options", "channel_host", "broker_transport_options"])
def test_every_client_notices_a_host_that_has_vanished(name: str) -> None:
    options = getattr(redis_clients("redis://cache.example:6379/0"), name)
    assert options["socket_keepalive"] is True
    assert options["socket_connect_timeout"] == 5.0
    assert options["health_check_interval"] == 10


def test_a_unix_socket_has_no_tcp_parameters() -> None:
    clients = redis_clients("unix:///run/valkey.sock?db=1")
    assert clients.url == "unix:///run/valkey.sock?db=1"
    assert clients.options == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rediss://h/0?ssl_cert_reqs=maybe", "ssl_cert_reqs must be required, optional or none, not 'maybe'"),
        ("rediss://h/0?ssl_check_hostname=perhaps", "ssl_check_hostname must be true or false"),
        ("rediss://h/0?ssl_cacerts=/x", "unknown parameter ssl_cacerts"),
        ("redis://h/0?ssl_cert_reqs=none", "needs a URL that begins with rediss://"),
    ],
)
def test_an_invalid_parameter_is_named(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^REDIS_URL: ") as refused:
        redis_clients(url)
    assert words in str(refused.value)
