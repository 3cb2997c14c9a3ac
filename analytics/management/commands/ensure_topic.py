"""`manage.py ensure_topic`: create the topic of engagement events if it does not exist."""

from typing import Any

from django.core.management.base import CommandParser

from analytics.management.commands.produce_events import ensure_topic
from offsets.kafka.admin import KafkaAdmin
from offsets.management.base import OperatorCommand, positive
from offsets.names import refuse_topic


class Command(OperatorCommand):
    help = "Create a topic for engagement events if it does not exist."
    json_option = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("topic")
        parser.add_argument("--partitions", type=positive, help="Partitions of a new topic.")

    def run(self, **options: Any) -> None:
        refuse_topic(options["topic"])
        exists = bool(KafkaAdmin().describe_topics([options["topic"]]))
        ensure_topic(options["topic"], None if exists else options["partitions"])
