from django.db import migrations

# Deltas live for seconds: vacuum must follow the fold, not the table's size. Totals and minutes are updated in
# place all the time: free room on each page keeps those updates HOT.
FORWARD = """
ALTER TABLE analytics_engagementdelta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200000);
ALTER TABLE analytics_engagementtotal SET (fillfactor = 80);
ALTER TABLE analytics_engagementminute SET (fillfactor = 50);
"""
BACKWARD = """
ALTER TABLE analytics_engagementdelta RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
ALTER TABLE analytics_engagementtotal RESET (fillfactor);
ALTER TABLE analytics_engagementminute RESET (fillfactor);
"""


class Migration(migrations.Migration):
    dependencies = [("analytics", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
