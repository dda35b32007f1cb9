from django.urls import path

from chat.consumers import RoomConsumer
from chat.layer import THUMBNAILS
from chat.local_rooms import LocalRooms
from chat.notifications import NotificationConsumer
from chat.thumbnails import ThumbnailConsumer

websocket_urlpatterns = [
    path("ws/chat/<slug:room>/", RoomConsumer.as_asgi(rooms=LocalRooms())),
    path("ws/notifications/", NotificationConsumer.as_asgi()),
]

channels = {THUMBNAILS: ThumbnailConsumer.as_asgi()}
