from django.db import migrations

# I5. The database itself refuses to lose a partition's place, whoever writes: a worker, an action, or a hand.
FORWARD = """
CREATE FUNCTION offsets_checkpoint_monotonic() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'checkpoint %: the epoch may not fall from % to %', OLD.id, OLD.epoch, NEW.epoch
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'checkpoint_monotonic';
    END IF;
    IF NEW.next_offset < OLD.next_offset THEN
        IF NEW.epoch = OLD.epoch AND NEW.topic_id = OLD.topic_id THEN
            RAISE EXCEPTION 'checkpoint %: next_offset may not fall from % to % within epoch %',
                OLD.id, OLD.next_offset, NEW.next_offset, OLD.epoch
                USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'checkpoint_monotonic';
        END IF;
        IF NEW.last_action_id IS NULL OR NEW.last_action_id IS NOT DISTINCT FROM OLD.last_action_id THEN
            RAISE EXCEPTION 'checkpoint %: lowering next_offset from % to % must name its audited action',
                OLD.id, OLD.next_offset, NEW.next_offset
                USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'checkpoint_monotonic';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER offsets_checkpoint_monotonic BEFORE UPDATE ON offsets_partitioncheckpoint
    FOR EACH ROW EXECUTE FUNCTION offsets_checkpoint_monotonic();
"""
BACKWARD = """
DROP TRIGGER offsets_checkpoint_monotonic ON offsets_partitioncheckpoint;
DROP FUNCTION offsets_checkpoint_monotonic();
"""


class Migration(migrations.Migration):
    dependencies = [("offsets", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
