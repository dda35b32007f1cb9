from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from chat.models import Order
from chat.orders import set_status
from chat.views import user_of


# ModelForm is generic in its type stubs only: at run time it takes no type arguments.
class NewOrderForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a user says of a new order."""

    class Meta:
        model = Order
        fields = ("title",)


@require_http_methods(["GET", "HEAD", "POST"])
def orders(request: HttpRequest) -> HttpResponse:
    """Show the user's orders, to staff all of them; or take a new one."""
    user = user_of(request)
    if request.method == "POST":
        form = NewOrderForm(request.POST)
        if form.is_valid():
            form.instance.user = user
            form.save()
        else:
            messages.error(request, "An order needs a title of 1 to 100 characters.")
        return redirect("orders")
    shown = Order.objects.all() if user.is_staff else Order.objects.filter(user=user)
    context = {
        "orders": shown.select_related("user").order_by("-pk"),
        "statuses": Order.Status.choices,
    }
    return render(request, "chat/orders.html", context)


@require_POST
def order_status(request: HttpRequest, order_id: int) -> HttpResponse:
    """Change the status of an order; for staff."""
    if not user_of(request).is_staff:
        raise PermissionDenied
    order = get_object_or_404(Order, pk=order_id)
    try:
        set_status(order, request.POST.get("status", ""))
    except ValueError as error:
        messages.error(request, str(error))
    return redirect("orders")
