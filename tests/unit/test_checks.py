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
