from django.contrib import admin
from django.contrib.auth import views as auth
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path, reverse_lazy

from streamsocial.login import AdminLoginForm, LoginForm, with_status

handler500 = "offsets.api.system.server_error"
admin.site.login_form = AdminLoginForm
# "View site" would lack the slash below a path prefix.
admin.site.site_url = reverse_lazy("dashboard")  # type: ignore[assignment]
_login = auth.LoginView.as_view(redirect_authenticated_user=True, authentication_form=LoginForm)


def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it by this name on pages without a link to an icon, such as JSON."""
    return redirect(static("favicon.svg"))


urlpatterns = [
    path("favicon.ico", favicon, name="favicon"),
    path("admin/login/", with_status(admin.site.login)),
    path("admin/", admin.site.urls),
    # Not all of django.contrib.auth.urls: there is no e-mail for password resets.
    path("accounts/login/", with_status(_login), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("", include("analytics.urls")),
]
