from offsets.actions.pause import ActionKind
from offsets.management.desired_state import DesiredStateCommand


class Command(DesiredStateCommand):
    help = "Resume paused partitions: their workers continue from the next offset within a heartbeat."
    kind = ActionKind.RESUME
