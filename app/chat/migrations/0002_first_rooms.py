from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def make_rooms(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    room = apps.get_model("chat", "Room")
    for name, title in (("lobby", "Lobby"), ("random", "Random")):
        room.objects.get_or_create(name=name, defaults={"title": title})


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial")]
    # Going back keeps the rooms: their messages would go with them.
    operations = [migrations.RunPython(make_rooms, migrations.RunPython.noop)]
