"""Incidents in full."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.api.http import MAX_INTEGER, api_view, error_response
from offsets.models import Incident
from offsets.monitoring import incidents


@api_view("GET", "HEAD")
def incident_detail(request: HttpRequest, incident_id: int) -> HttpResponse:
    """An incident in full: ranges, observations, timeline and notifications."""
    row = Incident.objects.filter(pk=min(incident_id, MAX_INTEGER), group_id=settings.ENGAGEMENT_GROUP).first()
    if row is None:
        return error_response(404, f"Unknown incident {incident_id}.")
    return JsonResponse(incidents.as_json(row))
