from django.urls import path, re_path

from analytics import api, api_reconcile, api_recovery, views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("healthz", api.healthz, name="healthz"),
    path("api/snapshot/", api.snapshot, name="api-snapshot"),
    path("api/partitions/<int:checkpoint_id>/preview/<str:kind>/", api.preview, name="api-preview"),
    path("api/partitions/<int:checkpoint_id>/<str:kind>/", api.act, name="api-act"),
    path(
        "api/partitions/<int:checkpoint_id>/reconcile/<str:store>/",
        api_reconcile.reconcile_store,
        name="api-reconcile",
    ),
    path("api/actions/<int:action_id>/undo/", api.undo_action, name="api-undo"),
    path("api/replays/", api_recovery.replay_list, name="api-replays"),
    path("api/replays/preview/", api_recovery.replay_preview, name="api-replay-preview"),
    path("api/replays/<int:replay_id>/", api_recovery.replay_detail, name="api-replay"),
    path("api/replays/<int:replay_id>/cancel/", api_recovery.replay_cancel, name="api-replay-cancel"),
    path("api/failed/accept/", api_recovery.accept_failed, name="api-accept-failed"),
    path("api/dead-letters/", api_recovery.letter_list, name="api-dead-letters"),
    path("api/dead-letters/<int:letter_id>/", api_recovery.letter_detail, name="api-dead-letter"),
    path("api/dead-letters/<str:kind>/", api_recovery.letters_act, name="api-dead-letters-act"),
    path("api/workers/<str:worker_id>/evict/", api_recovery.evict, name="api-evict"),
    path("api/incidents/<int:incident_id>/", api_recovery.incident_detail, name="api-incident"),
    re_path(r"^api/", api.not_found, name="api-not-found"),
]
