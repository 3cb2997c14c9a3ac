from django.conf import settings
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from analytics.dashboard.read_model import dashboard_of
from analytics.dashboard.routing import WEBSOCKET_PATH
from offsets.api.http import api_view
from offsets.permissions import VIEW, can_operate


@require_safe
@never_cache
@login_required
@permission_required(VIEW, raise_exception=True)
@ensure_csrf_cookie
def dashboard(request: HttpRequest) -> HttpResponse:
    """The page without its data, which comes by websocket. Its buttons need the CSRF cookie."""
    context = {
        "group": settings.ENGAGEMENT_GROUP,
        "can_operate": can_operate(request.user),
        "user": request.user,
        "websocket_path": reverse("dashboard") + WEBSOCKET_PATH,
    }
    return render(request, "dashboard.html", context)


@api_view("GET", "HEAD")
def snapshot(request: HttpRequest) -> HttpResponse:
    """The snapshot that the websocket would send now."""
    return JsonResponse(dashboard_of(settings.ENGAGEMENT_GROUP).snapshot())
