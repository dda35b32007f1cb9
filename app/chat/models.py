from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, ExpressionWrapper, OuterRef, Q
from django.urls import reverse


class RoomQuerySet(models.QuerySet["Room"]):
    """Rooms, and who may enter them."""

    def open_to(self, user_id: int) -> Self:
        """Return the rooms a user may enter: public ones, and private ones with them as a member.

        Staff enter no private room of others: the admin shows them what they are to see.
        """
        membership = Room.members.through.objects.filter(room_id=OuterRef("pk"), user_id=user_id)
        return self.filter(Q(is_private=False) | Exists(membership))


class Room(models.Model):
    """A named place in which everyone hears everyone."""

    # In URLs and in the name of the layer's group, which Channels keeps below 100 characters.
    name = models.SlugField(max_length=64, unique=True)
    title = models.CharField(max_length=100)
    is_private = models.BooleanField("private", default=False)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="rooms", blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        related_name="+",
        null=True,
        blank=True,
    )
    # The number of the room's newest message. Its row is the lock under which numbers are given.
    last_sequence = models.PositiveBigIntegerField(default=0, editable=False)

    objects = RoomQuerySet.as_manager()

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        """Return the path of the room's page."""
        return reverse("room", args=[self.name])


class Message(models.Model):
    """What one user said in one room, numbered within the room from 1 without gaps."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE)
    sequence = models.PositiveBigIntegerField()
    # A user who has said something is deactivated, not deleted: others still read it.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    # Empty where the message is an image.
    text = models.TextField(blank=True)
    # The sender's own name for the message, under which it may be sent again.
    client_id = models.CharField(max_length=64, null=True, blank=True)
    sent_at = models.DateTimeField()
    # The name of the worker that served the sender.
    worker = models.CharField(max_length=100)

    class Meta:
        constraints = (
            # Its index also serves every read of the history.
            models.UniqueConstraint(fields=["room", "sequence"], name="chat_message_sequence"),
            # Any number of messages may have none: NULLs differ from each other.
            models.UniqueConstraint(
                fields=["room", "user", "client_id"], name="chat_message_client_id"
            ),
        )

    def __str__(self) -> str:
        return f"{self.room_id}#{self.sequence}"


class LaterMessage(models.Model):
    """A message that is to be said when its time has come: a promise that no restart loses."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    text = models.TextField()
    client_id = models.CharField(max_length=64)
    # By the database's clock: the hosts' own may differ.
    due_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.room_id} at {self.due_at}"


class Image(models.Model):
    """The image of a message.

    Its bytes lie in the database: every worker on every host has to serve them, they are few and
    bounded in size, and the deployment has no storage that all hosts share.
    """

    message = models.OneToOneField(Message, on_delete=models.CASCADE)
    content = models.BinaryField()
    content_type = models.CharField(max_length=20)
    # In pixels, as it is to be shown: after the rotation its metadata asks for.
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    # Of the same content type; made later, by another process.
    thumbnail = models.BinaryField(null=True)
    # How often the making of the thumbnail has begun: it is not tried for ever.
    thumbnail_attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    # What a history needs to know without loading the thumbnail itself.
    has_thumbnail = models.GeneratedField(
        expression=ExpressionWrapper(
            Q(thumbnail__isnull=False), output_field=models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )

    def __str__(self) -> str:
        return f"{self.width} x {self.height} {self.content_type}"


class ReadPosition(models.Model):
    """Up to which message one user has read one room."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    sequence = models.PositiveBigIntegerField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["room", "user"], name="chat_read_position"),)

    def __str__(self) -> str:
        return f"{self.user_id} in {self.room_id}: {self.sequence}"


class WorkerInstance(models.Model):
    """One run of one worker process, which shows that it lives by its heartbeat."""

    name = models.CharField(max_length=150, primary_key=True)
    # By the database's clock: the hosts' own may differ.
    beat_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Presence(models.Model):
    """A person has at least one socket in a room, through one worker process."""

    instance = models.ForeignKey(WorkerInstance, on_delete=models.CASCADE)
    room = models.ForeignKey(Room, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["room", "user", "instance"], name="chat_presence_once"),
        )
        verbose_name_plural = "presences"

    def __str__(self) -> str:
        return f"{self.user_id} in {self.room_id} through {self.instance_id}"


class Order(models.Model):
    """Something a user has ordered; its status changes through ``chat.orders`` alone."""

    class Status(models.TextChoices):
        """How far an order has come."""

        NEW = "new"
        PAID = "paid"
        SHIPPED = "shipped"
        DELIVERED = "delivered"
        CANCELLED = "cancelled"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    title = models.CharField(max_length=100)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NEW)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"#{self.pk} {self.title}"
