"""What is refused before it starts."""

import pytest
from django.core.checks import run_checks
from pytest_django import Settings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PROCESSING_SEMANTICS", "mostly", "exactly_once, at_least_once, at_most_once"),
        ("OFFSET_STORE", "stone", "postgres, kafka, redis, file"),
        ("OFFSET_MIRRORS", ["postgres"], "it may name: kafka, redis, file"),
        ("OFFSET_STORE", "redis", "cannot keep exactly_once"),
        ("GROUP_PROTOCOL", "telepathy", "classic, consumer"),
        ("COMMIT_POLICY", "no.such.policy", "cannot be loaded"),
        ("OFFSET_BASELINE", "middle", "earliest, latest, group"),
    ],
)
def test_it_refuses_a_setup_that_cannot_keep_its_promise(settings: Settings, name: str, value: str, says: str) -> None:
    assert run_checks(tags=["offsets"]) == []
    setattr(settings, name, value)
    (error,) = run_checks(tags=["offsets"])
    assert says in error.msg


@pytest.mark.parametrize("names", [["content", "planet"], ["user", "user"]])
def test_it_refuses_dimensions_that_cannot_be_kept(settings: Settings, names: list[str]) -> None:
    assert run_checks(tags=["analytics"]) == []
    settings.ENGAGEMENT_DIMENSIONS = names
    (error,) = run_checks(tags=["analytics"])
    assert "ENGAGEMENT_DIMENSIONS" in error.msg


def test_it_refuses_to_deploy_with_every_host_allowed(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    found = run_checks(tags=["security"], include_deployment_checks=True)
    assert "offsets.E003" in {message.id for message in found}


def test_it_refuses_static_members_under_the_consumer_protocol_and_slots_that_share_a_file(settings: Settings) -> None:
    settings.GROUP_PROTOCOL, settings.GROUP_INSTANCE_ID = "consumer", "a"
    settings.PROCESSING_SEMANTICS, settings.OFFSET_STORE, settings.CONSUMER_SLOTS = "at_least_once", "file", 2
    found = {message.id: message.msg for message in run_checks(tags=["offsets"])}
    assert found.keys() == {"offsets.E002", "offsets.E005"}
    assert "GROUP_INSTANCE_ID needs GROUP_PROTOCOL=classic" in found["offsets.E002"]
    assert "serves one worker" in found["offsets.E005"]
