"""Connections of the webhook: direct, or through the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name."""

from urllib.parse import SplitResult, unquote, urlsplit

import urllib3
from django.conf import settings


def proxy_for(url: str) -> str:
    """The proxy for this address; empty for a direct connection. A host that NO_PROXY lists is reached directly."""
    parts = urlsplit(url)
    proxy = str(settings.HTTPS_PROXY if parts.scheme == "https" else settings.HTTP_PROXY)
    if not proxy or _is_direct(parts.hostname or "", parts.port):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def refused_proxy() -> str:
    """Why the webhook's proxy cannot be used; empty when it can, or when there is none. The value is not repeated."""
    url = settings.ALERT_WEBHOOK_URL
    try:
        proxy = urlsplit(proxy_for(url)) if url else None
        usable = proxy is None or not proxy.geturl() or (proxy.scheme in ("http", "https") and _has_host(proxy))
    except ValueError:
        usable = False
    if usable:
        return ""
    name = "HTTPS_PROXY" if url.startswith("https") else "HTTP_PROXY"
    return f"{name} must be a URL such as http://user:password@proxy.example.org:3128."


def _has_host(parts: SplitResult) -> bool:
    """Raises ValueError for an invalid port."""
    return bool(parts.hostname) and " " not in parts.netloc and (parts.port is None or parts.port > 0)


def _is_direct(host: str, port: int | None) -> bool:
    """Whether NO_PROXY lists the host, its domain, or the host with this port."""
    for entry in settings.NO_PROXY:
        name = entry.lower().lstrip(".")
        if name in ("*", host, f"{host}:{port}") or host.endswith(f".{name}"):
            return True
    return False


def pool_for(url: str) -> urllib3.PoolManager:
    """A pool of connections for this address. The certificate of an https address is checked through a proxy, too."""
    proxy = proxy_for(url)
    if not proxy:
        return urllib3.PoolManager(retries=False)
    parts = urlsplit(proxy)
    headers = None
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=login)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, retries=False)
