"""The status of orders; whoever changes one does it here, so that its user is told."""

import json

from django.db import transaction
from django.utils import timezone

from chat import layer
from chat.models import Order


def set_status(order: Order, status: str) -> bool:
    """Change the status of an order and tell its user on commit; return whether it was another.

    Raises:
        ValueError: there is no such status.
    """
    if status not in Order.Status.values:
        allowed = ", ".join(Order.Status.values)
        raise ValueError(f"{status!r} is not the status of an order; allowed are {allowed}.")
    with transaction.atomic():
        # The condition in the statement: of two who set the same status, one tells of it.
        others = Order.objects.filter(pk=order.pk).exclude(status=status)
        if not others.update(status=status, updated_at=timezone.now()):
            return False
        order.refresh_from_db()
        frame = {
            "type": "order.update",
            "order": order.pk,
            "status": order.status,
            "title": order.title,
            "updated_at": order.updated_at.isoformat(),
        }
        event = {"type": "person.frame", "frame": json.dumps(frame)}
        layer.tell_on_commit(layer.user_group(order.user_id), event)
    return True
