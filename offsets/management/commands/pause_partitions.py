from offsets.actions.pause import ActionKind
from offsets.management.desired_state import DesiredStateCommand


class Command(DesiredStateCommand):
    help = "Pause partitions of a running group: their workers stop within a heartbeat and keep ownership."
    kind = ActionKind.PAUSE
