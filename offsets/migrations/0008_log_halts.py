from django.db import migrations, models

import offsets.types


class Migration(migrations.Migration):
    dependencies = [
        ("offsets", "0007_words"),
    ]

    operations = [
        migrations.AlterField(
            model_name="partitioncheckpoint",
            name="halt_reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "none"),
                    ("expired", "expired"),
                    ("truncated", "truncated"),
                    ("recreated", "recreated"),
                    ("unreadable", "unreadable"),
                    ("store_missing", "store missing"),
                ],
                default=offsets.types.HaltReason["NONE"],
                max_length=20,
            ),
        ),
    ]
