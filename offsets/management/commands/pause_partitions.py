from offsets.actions.pause import ActionKind
from offsets.management.desired_state import DesiredStateCommand


class Command(DesiredStateCommand):
    help = "Pause partitions of a running group. Workers stop reading within a heartbeat and keep ownership."
    kind = ActionKind.PAUSE
