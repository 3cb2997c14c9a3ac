"""What the tests of the API share."""

import json
from typing import Any

from django.test import Client
from django.utils import timezone

from offsets.models import (
    DeadLetter,
    Incident,
    OperatorAction,
    PartitionCheckpoint,
)
from tests.support.page_rows import GROUP, make_user
from tests.support.records import event

HUGE = 10**30


def client_of(name: str, *groups: str, enforce_csrf_checks: bool = False, **fields: Any) -> Client:
    client = Client(enforce_csrf_checks=enforce_csrf_checks)
    client.force_login(make_user(name, *groups, **fields))
    return client


def post(client: Client, path: str, body: Any) -> Any:
    data = body if isinstance(body, str) else json.dumps(body)
    return client.post(path, data, content_type="application/json")


def make_letter(checkpoint: PartitionCheckpoint, offset: int, **fields: Any) -> DeadLetter:
    defaults = {"error_code": "too_large", "error_detail": "d", "value": event("view", 1, 2), "key": b"2"}
    return DeadLetter.objects.create(checkpoint=checkpoint, offset=offset, **(defaults | fields))


def outcomes() -> list[tuple[str, str, str, str]]:
    rows = OperatorAction.objects.order_by("pk")
    return list(rows.values_list("kind", "outcome", "username", "source"))


def make_incident(**fields: Any) -> Incident:
    defaults = {"kind": "worker_dead", "subject": "w-1", "summary": "w-1 is dead.", "began_at": timezone.now()}
    return Incident.objects.create(group_id=GROUP, **(defaults | fields))
