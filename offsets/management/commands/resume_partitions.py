from offsets.actions.pause import ActionKind
from offsets.management.desired_state import DesiredStateCommand


class Command(DesiredStateCommand):
    help = "Resume paused partitions: their workers go on from the next offset within a heartbeat."
    kind = ActionKind.RESUME
