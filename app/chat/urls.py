from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from chat import views

urlpatterns = [
    path("", views.room_list, name="rooms"),
    path("rooms/<slug:name>/", views.room, name="room"),
    path(
        "login/",
        LoginView.as_view(template_name="chat/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
]
