from django.conf import settings
from django.db import models
from django.urls import reverse


class Room(models.Model):
    """A named place in which everyone hears everyone."""

    # In URLs and in the name of the layer's group, which Channels keeps below 100 characters.
    name = models.SlugField(max_length=64, unique=True)
    title = models.CharField(max_length=100)
    # The number of the room's newest message. Its row is the lock under which numbers are given.
    last_sequence = models.PositiveBigIntegerField(default=0, editable=False)

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
    text = models.TextField()
    sent_at = models.DateTimeField()
    # The name of the worker that served the sender.
    worker = models.CharField(max_length=100)

    class Meta:
        # Its index also serves every read of the history.
        constraints = (
            models.UniqueConstraint(fields=["room", "sequence"], name="chat_message_sequence"),
        )

    def __str__(self) -> str:
        return f"{self.room_id}#{self.sequence}"
