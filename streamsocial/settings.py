"""Settings of the whole application. Secrets come from the environment only; see `.env.example`."""

import sys
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF

from offsets.configuration import BASELINES, GROUP_PROTOCOLS, SEMANTICS, STORES
from offsets.names import group_problem, instance_problem, topic_problem
from streamsocial import values
from streamsocial.environment import BASE_DIR, Environment, deployment_name
from streamsocial.redis_clients import redis_clients

env = Environment()

# --- Safety ---------------------------------------------------------------------------------------
DEBUG = env.flag("DEBUG", default=False)
# A process starts without its own key (migrations, checks), but no web server does.
SECRET_KEY = env.text("SECRET_KEY", "insecure-until-SECRET_KEY-is-set")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]", rule=values.allowed_host)
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS", rule=values.origin)
SECURE_COOKIES = env.flag("SECURE_COOKIES", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_COOKIES
SESSION_COOKIE_HTTPONLY = True
#: Where a proxy serves the site below a path. The cookies are bound to it: another deployment on the same host has
#: its own.
_URL_PREFIX = env.text("URL_PREFIX", rule=values.path_prefix)
URL_PREFIX = _URL_PREFIX.rstrip("/")
FORCE_SCRIPT_NAME = URL_PREFIX or None
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{URL_PREFIX}/"
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "connect-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

# --- Applications ---------------------------------------------------------------------------------
INSTALLED_APPS = [
    # Adds websockets to runserver. For other commands its import would take a seventh of the start.
    *(["daphne"] if "runserver" in sys.argv else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "streamsocial",
    "offsets",
    "analytics",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "streamsocial.urls"
ASGI_APPLICATION = "streamsocial.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
# The chart library is served from where npm installed it; nothing third-party is copied into the repository.
_UPLOT = BASE_DIR / "node_modules" / "uplot" / "dist"
if _UPLOT.is_dir():
    STATICFILES_DIRS.append(("uplot", _UPLOT))  # type: ignore[arg-type]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "streamsocial.prefix.PrefixedStaticFiles"},
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "dashboard"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

# --- Services -------------------------------------------------------------------------------------
DATABASES = {
    "default": dj_database_url.parse(
        env.text("DATABASE_URL", "postgresql://streamsocial@127.0.0.1:5432/streamsocial", rule=values.postgres_url),
        conn_max_age=0,
    )
}
# Translates errors by one rule, and sets the timeouts below (offsets/postgresql).
DATABASES["default"]["ENGINE"] = "offsets.postgresql"
#: A host that vanishes is noticed within 20 s. The parameters of DATABASE_URL win.
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    **DATABASES["default"].get("OPTIONS", {}),
}
#: For every session. A process that is suspended in a transaction holds its locks no longer than this: a worker its
#: partitions, a leader its lease, a command the rows that it changes.
IDLE_IN_TRANSACTION_TIMEOUT_MS = env.integer("IDLE_IN_TRANSACTION_TIMEOUT_MS", 15_000, minimum=1000)
#: A worker and the recovery manager count the database as lost when a statement has no answer for so long.
DATABASE_ANSWER_SECONDS = env.integer("DATABASE_ANSWER_SECONDS", 20, minimum=2, maximum=3600)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_REDIS = redis_clients(env.text("REDIS_URL", "redis://127.0.0.1:6379/0", rule=values.redis_url))
REDIS_URL = _REDIS.url
#: Arguments of every redis-py client: TLS, keepalives, health checks.
REDIS_OPTIONS = _REDIS.options
#: Names this deployment where several share one Redis: in the keys of the redis offset store and of Celery's queues.
DEPLOYMENT = env.text("DEPLOYMENT", rule=values.deployment)
#: Of all that may get lost. Without a name it is derived from the database, so that pages are never mixed.
REDIS_PREFIX = f"streamsocial:{DEPLOYMENT or deployment_name(DATABASES['default'])}"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [_REDIS.channel_host], "prefix": REDIS_PREFIX, "expiry": 10},
    }
}

#: Counts failed logins; the second one while Redis is unavailable.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": REDIS_PREFIX,
        "OPTIONS": {**REDIS_OPTIONS, "socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    },
    "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}

KAFKA_BOOTSTRAP_SERVERS = env.text("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092", rule=values.kafka_brokers)
#: Passed unchanged to every Kafka client (`KAFKA_CONFIG_SASL_USERNAME` is `sasl.username`); never logged.
KAFKA_CONFIG = env.prefixed("KAFKA_CONFIG_")

# --- Counting -------------------------------------------------------------------------------------
ENGAGEMENT_TOPIC = env.text("ENGAGEMENT_TOPIC", "engagement", rule=topic_problem)
ENGAGEMENT_GROUP = env.text("ENGAGEMENT_GROUP", "engagement-analytics", rule=group_problem)
#: Dimensions of the counts, frozen on each checkpoint when it is created: content, user.
ENGAGEMENT_DIMENSIONS = env.words("ENGAGEMENT_DIMENSIONS", "content,user")
#: An event whose time is further than this from its record's timestamp counts in the record's minute.
EVENT_TIME_TOLERANCE_SECONDS = env.integer("EVENT_TIME_TOLERANCE_SECONDS", 7 * 24 * 3600, minimum=0)
EVENT_MAX_BYTES = env.integer("EVENT_MAX_BYTES", 1024 * 1024, minimum=64)
MINUTE_RETENTION_DAYS = env.integer("MINUTE_RETENTION_DAYS", 30, minimum=1)

BATCH_HANDLER = env.text("BATCH_HANDLER", "analytics.processor.EngagementProcessor")
# `offsets.checks` rejects invalid combinations and explains why.
PROCESSING_SEMANTICS = env.choice("PROCESSING_SEMANTICS", "exactly_once", SEMANTICS)
OFFSET_STORE = env.choice("OFFSET_STORE", "postgres", STORES)
#: Stores that mirror the ledger for other tools: kafka, redis, file.
OFFSET_MIRRORS = env.words("OFFSET_MIRRORS", "kafka")
MIRROR_INTERVAL_MS = env.integer("MIRROR_INTERVAL_MS", 1000, minimum=50, maximum=60_000)
OFFSET_FILE_DIR = env.text("OFFSET_FILE_DIR", str(BASE_DIR / "offset-files"))
GROUP_PROTOCOL = env.choice("GROUP_PROTOCOL", "classic", GROUP_PROTOCOLS)
#: Makes workers static members (classic protocol only); slots append their number.
GROUP_INSTANCE_ID = env.text("GROUP_INSTANCE_ID", rule=instance_problem)
OFFSET_BASELINE = env.choice("OFFSET_BASELINE", "earliest", BASELINES)

#: Measured: batches of 100,000 exceed the processor's cache.
FETCH_MAX_RECORDS = env.integer("FETCH_MAX_RECORDS", 10_000, minimum=1, maximum=100_000)
COMMIT_INTERVAL_MS = env.integer("COMMIT_INTERVAL_MS", 500, minimum=10, maximum=60_000)
#: A dotted path to a commit policy or to a factory of one: see docs/how-to/write-a-commit-policy.md.
COMMIT_POLICY = env.text("COMMIT_POLICY", "offsets.processing.commit_policy.default_policy")
#: The maximum time for which a policy may delay a commit.
COMMIT_MAX_SECONDS = env.integer("COMMIT_MAX_SECONDS", 30, minimum=1, maximum=3600)
COMMIT_MAX_BYTES = env.integer("COMMIT_MAX_BYTES", 64 * 1024 * 1024, minimum=1024)
COMMIT_MAX_RECORDS = env.integer("COMMIT_MAX_RECORDS", 400_000, minimum=1)
PIPELINE_MAX_BYTES = env.integer("PIPELINE_MAX_BYTES", 64 * 1024 * 1024, minimum=1024 * 1024)
HEARTBEAT_INTERVAL_MS = env.integer("HEARTBEAT_INTERVAL_MS", 1000, minimum=100, maximum=1000)
HEARTBEAT_TIMEOUT_SECONDS = env.integer("HEARTBEAT_TIMEOUT_SECONDS", 10, minimum=2, maximum=600)
SESSION_TIMEOUT_MS = env.integer("SESSION_TIMEOUT_MS", 6000, minimum=1000)
MAX_POLL_INTERVAL_MS = env.integer("MAX_POLL_INTERVAL_MS", 60_000, minimum=6000)
CLAIM_LOCK_TIMEOUT_MS = env.integer("CLAIM_LOCK_TIMEOUT_MS", 2000, minimum=100)
#: A worker or recovery manager that was asked to stop ends within this time, whatever a service does.
SHUTDOWN_SECONDS = env.integer("SHUTDOWN_SECONDS", 10, minimum=3, maximum=600)
#: A partition further behind than this is LAGGING, unless its lag shrinks.
ALLOWED_LAG_SECONDS = env.integer("ALLOWED_LAG_SECONDS", 10, minimum=1)
#: A worker that is in one stage for longer than this, and is not waiting for a service, is stuck.
WORKER_STUCK_SECONDS = env.integer("WORKER_STUCK_SECONDS", 30, minimum=1)
#: Whether the recovery manager evicts stuck workers automatically.
EVICT_STUCK_WORKERS = env.flag("EVICT_STUCK_WORKERS", default=True)
#: Warn of uncounted offsets that Kafka deletes within this time.
RETENTION_WARN_SECONDS = env.integer("RETENTION_WARN_SECONDS", 3600, minimum=1)
#: An incident is opened for a transaction that hides records for longer. Kafka's default timeout of one is a minute.
OPEN_TRANSACTION_WARN_SECONDS = env.integer("OPEN_TRANSACTION_WARN_SECONDS", 60, minimum=1)
#: Delay of the first automatic replay of a failed range; it doubles each time, at most REPLAY_ATTEMPTS times.
REPLAY_FIRST_SECONDS = env.integer("REPLAY_FIRST_SECONDS", 1, minimum=1)
REPLAY_ATTEMPTS = env.integer("REPLAY_ATTEMPTS", 8, minimum=1, maximum=50)
#: A partition is paused when more than this percentage of its last DEAD_LETTER_WINDOW records fail, or
#: DEAD_LETTER_MAX_IN_A_ROW of them in a row.
DEAD_LETTER_MAX_PERCENT = env.integer("DEAD_LETTER_MAX_PERCENT", 50, minimum=1, maximum=100)
DEAD_LETTER_WINDOW = env.integer("DEAD_LETTER_WINDOW", 1000, minimum=1)
DEAD_LETTER_MAX_IN_A_ROW = env.integer("DEAD_LETTER_MAX_IN_A_ROW", 1000, minimum=1)
#: At most so much of a dead letter's value, key and headers is stored; more than that cannot be requeued.
DEAD_LETTER_MAX_BYTES = env.integer("DEAD_LETTER_MAX_BYTES", 1024 * 1024, minimum=64)
#: The bytes of dead letters that were counted or discarded are deleted after these days.
DEAD_LETTER_RETENTION_DAYS = env.integer("DEAD_LETTER_RETENTION_DAYS", 90, minimum=1, maximum=36_500)
#: The counts from before a rebuild are deleted after these days; until then the rebuild can be undone.
REBUILT_RETENTION_DAYS = env.integer("REBUILT_RETENTION_DAYS", 30, minimum=1, maximum=36_500)
#: This many failed batches in a row pause it, too.
FAILED_BATCHES_MAX_IN_A_ROW = env.integer("FAILED_BATCHES_MAX_IN_A_ROW", 3, minimum=1)
DASHBOARD_INTERVAL_MS = env.integer("DASHBOARD_INTERVAL_MS", 1000, minimum=500)

# --- Alerts ---------------------------------------------------------------------------------------
#: Incidents are posted to this URL, signed with the secret; both empty: no webhook.
ALERT_WEBHOOK_URL = env.text("ALERT_WEBHOOK_URL", rule=values.url(("http", "https"), "https://alerts.example.org/hook"))
ALERT_WEBHOOK_SECRET = env.text("ALERT_WEBHOOK_SECRET")
ALERT_EMAIL_TO = env.words("ALERT_EMAIL_TO", rule=values.mail_address)
ALERT_EMAIL_FROM = env.text("ALERT_EMAIL_FROM", "streamsocial@localhost", rule=values.mail_address)
EMAIL_HOST = env.text("EMAIL_HOST", rule=values.host)
EMAIL_PORT = env.integer("EMAIL_PORT", 25, minimum=1, maximum=65535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", default=False)
#: TLS from the first byte, usually at port 465; EMAIL_USE_TLS is STARTTLS.
EMAIL_USE_SSL = env.flag("EMAIL_USE_SSL", default=False)
EMAIL_TIMEOUT = 5
#: The webhook goes through a proxy, chosen by its scheme, unless NO_PROXY lists its host.
#: Other programs read these variables, too: the checks judge them only where a webhook is set.
HTTPS_PROXY = env.text("HTTPS_PROXY")
HTTP_PROXY = env.text("HTTP_PROXY")
NO_PROXY = env.words("NO_PROXY")
NOTIFY_MAX_ATTEMPTS = env.integer("NOTIFY_MAX_ATTEMPTS", 8, minimum=1)
NOTIFY_MAX_PER_HOUR = env.integer("NOTIFY_MAX_PER_HOUR", 60, minimum=1)
#: What heals sooner is not announced.
NOTIFY_AFTER_SECONDS = env.integer("NOTIFY_AFTER_SECONDS", 5, minimum=0)
#: An incident that reopens within this time after the last message about it is not announced again.
NOTIFY_QUIET_SECONDS = env.integer("NOTIFY_QUIET_SECONDS", 300, minimum=0)

# --- Celery ---------------------------------------------------------------------------------------
CONSUMER_SLOTS = env.integer("CONSUMER_SLOTS", 2, minimum=1, maximum=1000)
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_USE_SSL = _REDIS.broker_use_ssl
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = False  # a slot would be redelivered after the visibility timeout and run twice
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
#: Tasks that share a database connection: with a new one for each, ticks would open several a second.
CELERY_DB_REUSE_MAX = 1000
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A lost message does no harm: ticks recur, and starts are sent again. So none is kept for redelivery.
CELERY_BROKER_TRANSPORT_OPTIONS = {**_REDIS.broker_transport_options, "ack_emulation": False}
if DEPLOYMENT:
    # Another deployment on the same Redis must not take this one's tasks.
    CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"] = f"streamsocial:{DEPLOYMENT}:celery:"
#: DEPLOYMENT separates the queues of deployments on one Redis without other names.
CELERY_QUEUE_SUFFIX = env.text("CELERY_QUEUE_SUFFIX", rule=values.queue_suffix)
CELERY_TASK_DEFAULT_QUEUE = f"control{CELERY_QUEUE_SUFFIX}"
CELERY_TASK_ROUTES = {
    "offsets.tasks.run_slot": {"queue": f"slots{CELERY_QUEUE_SUFFIX}"},
    # A replay may take hours: it must not block supervision or a slot.
    "offsets.tasks.run_replay": {"queue": f"replays{CELERY_QUEUE_SUFFIX}"},
}

# --- Logging --------------------------------------------------------------------------------------
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    },
    "filters": {"outages": {"()": "offsets.database.OutageFilter"}},
    # Not sys.stderr, which Celery replaces by its logger: what is logged to that comes back, and is dropped.
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.__stderr__"}},
    "root": {"handlers": ["stderr"], "level": env.choice("LOG_LEVEL", "INFO", values.LOG_LEVELS)},
    # librdkafka logs a lost broker about 20 times a second; the client's logger limits that.
    "loggers": {
        "daphne": {"level": "WARNING"},
        "django.channels.server": {"level": "WARNING"},
        "django.request": {"filters": ["outages"]},
    },
}
