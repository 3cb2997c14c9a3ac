from offsets.management.commands._desired_state import DesiredStateCommand
from offsets.recovery.actions import ActionKind


class Command(DesiredStateCommand):
    help = "Resume paused partitions: their workers go on from the next offset within a heartbeat."
    kind = ActionKind.RESUME
