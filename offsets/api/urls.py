"""URLs of the HTTP API, relative to the site root."""

from django.urls import path, re_path

from offsets.api import dead_letters, incidents, partitions, replays, stores, system, workers

urlpatterns = [
    path("healthz", system.healthz, name="healthz"),
    path("livez", system.livez, name="livez"),
    path("api/partitions/<int:checkpoint_id>/preview/<str:kind>/", partitions.preview, name="api-preview"),
    path("api/partitions/<int:checkpoint_id>/<str:kind>/", partitions.act, name="api-act"),
    path(
        "api/partitions/<int:checkpoint_id>/reconcile/<str:store>/",
        stores.reconcile_store,
        name="api-reconcile",
    ),
    path("api/actions/<int:action_id>/undo/", system.undo_action, name="api-undo"),
    path("api/replays/", replays.replay_list, name="api-replays"),
    path("api/replays/preview/", replays.replay_preview, name="api-replay-preview"),
    path("api/replays/<int:replay_id>/", replays.replay_detail, name="api-replay"),
    path("api/replays/<int:replay_id>/cancel/", replays.replay_cancel, name="api-replay-cancel"),
    path("api/failed/accept/", replays.accept_failed, name="api-accept-failed"),
    path("api/dead-letters/", dead_letters.dead_letter_list, name="api-dead-letters"),
    path("api/dead-letters/<int:dead_letter_id>/", dead_letters.dead_letter_detail, name="api-dead-letter"),
    path("api/dead-letters/<str:kind>/", dead_letters.dead_letters_act, name="api-dead-letters-act"),
    path("api/workers/<str:worker_id>/evict/", workers.evict, name="api-evict"),
    path("api/incidents/<int:incident_id>/", incidents.incident_detail, name="api-incident"),
    re_path(r"^api/", system.not_found, name="api-not-found"),
]
