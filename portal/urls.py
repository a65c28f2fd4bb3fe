"""The portal host: every password, account page and console lives here and nowhere else."""

from django.urls import URLPattern, URLResolver, path, re_path

from portal.api import views as api
from portal.shared_urls import shared
from portal.views import account, console, enter, errors, login, signup

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.broken

urlpatterns: list[URLPattern | URLResolver] = [
    path("", account.home, name="home"),
    path("login/", login.login, name="login"),
    path("logout/", login.logout, name="logout"),
    path("signup/", signup.signup, name="signup"),
    re_path(r"^signup/(?P<token>[A-Za-z0-9_-]{43})/$", signup.signup_link, name="signup_link"),
    path("password/forgot/", signup.password_forgot, name="password_forgot"),
    path("password/reset/done/", signup.password_reset_complete, name="password_reset_complete"),
    re_path(r"^password/reset/(?P<token>[A-Za-z0-9_-]{43})/$", signup.password_reset, name="password_reset_confirm"),
    path("enter/<slug:slug>/", enter.enter, name="enter"),
    path("step-up/", login.step_up, name="step_up"),
    path("account/", account.profile, name="profile"),
    path("account/password/", account.password_change, name="password_change"),
    path("account/password/done/", account.password_change_done, name="password_change_done"),
    path("account/sessions/", account.sessions_page, name="account_sessions"),
    path("account/sessions/end", account.sessions_end, name="account_sessions_end"),
    path("console/", console.home, name="console_home"),
    path("console/<slug:slug>/", console.overview, name="console"),
    path("console/<slug:slug>/sessions/", console.sessions_page, name="console_sessions"),
    path("console/<slug:slug>/sessions/end", console.sessions_end, name="console_sessions_end"),
    path("api/v1/signup", api.signup),
    path("api/v1/login", api.login),
    path("api/v1/logout", api.logout),
    path("api/v1/session", api.session),
    *shared,
]
