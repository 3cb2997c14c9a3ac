from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

handler500 = "offsets.api.system.server_error"
urlpatterns = [
    path("admin/", admin.site.urls),
    # Not all of django.contrib.auth.urls: there is no e-mail for password resets.
    path("accounts/login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("", include("analytics.urls")),
]
