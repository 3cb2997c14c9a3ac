"""Names of leases and slots hold the longest group id."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("offsets", "0004_recovery")]

    operations = [
        migrations.AlterField("lease", "name", models.CharField(max_length=300, primary_key=True, serialize=False)),
        migrations.AlterField("worker", "slot", models.CharField(blank=True, default="", max_length=300)),
    ]
