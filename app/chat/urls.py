from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from chat import api, image_views, order_views, views

urlpatterns = [
    path("", views.room_list, name="rooms"),
    path("rooms/<slug:name>/", views.room, name="room"),
    path("rooms/<slug:name>/members/", views.members, name="members"),
    path("images/<int:image_id>/", image_views.image, name="image"),
    path("images/<int:image_id>/thumbnail/", image_views.thumbnail, name="thumbnail"),
    path("orders/", order_views.orders, name="orders"),
    path("orders/<int:order_id>/status/", order_views.order_status, name="order_status"),
    path("api/token/", api.token, name="api_token"),
    path("api/rooms/<slug:name>/messages/", api.messages, name="api_messages"),
    path(
        "login/",
        LoginView.as_view(template_name="chat/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
]
