from django.db import migrations, models
from django.db.models.functions import Least

from identity.devices import device


def name_devices(apps, schema_editor):
    """Say of the sessions that are there what kind of device they are on."""
    Session = apps.get_model("identity", "Session")
    rows = Session.objects.filter(device="").exclude(user_agent="").order_by().values_list("pk", "user_agent")
    kinds = {}
    for pk, agent in rows.iterator(5_000):
        kinds.setdefault(device(agent).kind, []).append(pk)
    for kind, ids in kinds.items():
        for first in range(0, len(ids), 5_000):
            Session.objects.filter(pk__in=ids[first : first + 5_000]).update(device=kind)


class Migration(migrations.Migration):
    dependencies = [
        ("identity", "0006_console"),
    ]

    operations = [
        migrations.AddField(
            model_name="session",
            name="device",
            field=models.CharField(blank=True, db_default="", default="", max_length=8),
        ),
        migrations.RunPython(name_devices, migrations.RunPython.noop, elidable=True),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(
                models.F("tenant"),
                Least("expires_at", "idle_expires_at"),
                models.F("id"),
                condition=models.Q(ended_at=None),
                name="live_by_end",
            ),
        ),
    ]
