from django.urls import include, path

from analytics.dashboard import views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("api/snapshot/", views.snapshot, name="api-snapshot"),
    # Last: it answers every other address below /api/.
    path("", include("offsets.api.urls")),
]
