from django.urls import path, re_path

from analytics import api, views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("healthz", api.healthz, name="healthz"),
    path("api/snapshot/", api.snapshot, name="api-snapshot"),
    path("api/partitions/<int:checkpoint_id>/preview/<str:kind>/", api.preview, name="api-preview"),
    path("api/partitions/<int:checkpoint_id>/<str:kind>/", api.act, name="api-act"),
    path("api/actions/<int:action_id>/undo/", api.undo_action, name="api-undo"),
    re_path(r"^api/", api.not_found, name="api-not-found"),
]
