from django.db import migrations

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

    operations = [migrations.RunPython(name_devices, migrations.RunPython.noop, elidable=True)]
