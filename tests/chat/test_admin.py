"""The admin: every model is shown in it, and what the application alone writes is only shown."""

import pytest
from django.apps import apps
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from chat.history import MessageHistory, NewImage
from chat.models import LaterMessage, Order, Presence, ReadPosition, Room, WorkerInstance

MODELS = list(apps.get_app_config("chat").get_models())
READ_ONLY = ["message", "latermessage", "image", "readposition", "workerinstance", "presence"]


@pytest.fixture
def root(client: Client, lobby: Room, ada: User) -> Client:
    """Return the client of a superuser, where there is something of everything."""
    image = NewImage(b"the bytes of an image", "image/png", 40, 30)
    MessageHistory(lobby.pk).append(user_id=ada.pk, text="", worker="a-worker", image=image)
    worker = WorkerInstance.objects.create(name="app1:8001 7-0a", beat_at=timezone.now())
    Presence.objects.create(instance=worker, room=lobby, user=ada)
    ReadPosition.objects.create(room=lobby, user=ada, sequence=1)
    Order.objects.create(user=ada, title="Tea")
    LaterMessage.objects.create(
        room=lobby, user=ada, text="later", client_id="mine", due_at=timezone.now()
    )
    client.force_login(User.objects.create_superuser("root"))
    return client


def page_of(row: Model) -> str:
    return reverse(f"admin:chat_{row._meta.model_name}_change", args=[quote(row.pk)])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.model_name)
def test_rows_are_listed_and_shown(root: Client, model: type[Model]) -> None:
    page = root.get(reverse(f"admin:chat_{model._meta.model_name}_changelist"))
    assert page.status_code == 200
    rows = list(page.context["cl"].result_list)
    assert rows
    assert root.get(page_of(rows[0])).status_code == 200


def test_a_list_of_images_loads_none(root: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = root.get("/admin/chat/image/")
    assert "/thumbnail/" in page.text
    columns = ('."content"', '."thumbnail"')
    assert not [query for query in queries if any(name in query["sql"] for name in columns)]


@pytest.mark.parametrize("name", READ_ONLY)
def test_what_the_application_writes_cannot_be_written(root: Client, name: str) -> None:
    assert root.get(f"/admin/chat/{name}/add/").status_code == 403
    row = apps.get_model("chat", name)._default_manager.get()
    assert root.post(page_of(row), {}).status_code == 403
