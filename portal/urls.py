"""The portal host: every password, account page and console lives here and nowhere else."""

from django.urls import URLPattern, URLResolver, path, re_path

from portal.api import views as api
from portal.shared_urls import shared
from portal.views import (
    account,
    activity,
    email,
    enter,
    errors,
    invitation,
    leaving,
    link,
    login,
    outbox,
    password,
    profile,
    signup,
    step_up,
    two_factor,
)
from portal.views.console import ends, factors, home, lockouts, people, sessions, tree

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.broken

urlpatterns: list[URLPattern | URLResolver] = [
    path("", account.home, name="home"),
    path("login/", login.login, name="login"),
    path("login/code/", login.code, name="login_code"),
    path("logout/", login.logout, name="logout"),
    path("signup/", signup.signup, name="signup"),
    re_path(r"^signup/(?P<token>[A-Za-z0-9_-]{43})/$", signup.signup_link, name="signup_link"),
    path("password/forgot/", password.password_forgot, name="password_forgot"),
    path("password/reset/done/", password.password_reset_complete, name="password_reset_complete"),
    re_path(r"^password/reset/(?P<token>[A-Za-z0-9_-]{43})/$", password.password_reset, name="password_reset_confirm"),
    re_path(r"^invitation/(?P<token>[A-Za-z0-9_-]{43})/$", invitation.page, name="invitation"),
    path("invitation/accept", invitation.accept_mine, name="invitation_accept"),
    re_path(r"^link/verify/(?P<token>[A-Za-z0-9_-]{43})/$", email.verify, name="link_verify"),
    re_path(r"^link/take-back/(?P<token>[A-Za-z0-9_-]{43})/$", email.take_back, name="link_take_back"),
    re_path(r"^link/not-me/(?P<token>[A-Za-z0-9_-]{43})/$", link.not_me, name="link_not_me"),
    re_path(r"^link/unlock/(?P<token>[A-Za-z0-9_-]{43})/$", link.unlock, name="link_unlock"),
    path("outbox/", outbox.page, name="outbox"),  # the demo's alone
    path("outbox/<int:pk>/", outbox.html, name="outbox_mail"),
    path("enter/<slug:slug>/", enter.enter, name="enter"),
    path("step-up/", step_up.step_up, name="step_up"),
    path("account/", profile.page, name="profile"),
    path("account/email/", email.page, name="email"),
    path("account/name/", profile.username_change, name="username_change"),
    path("account/export/", leaving.export, name="account_export"),
    path("account/delete/", leaving.delete, name="account_delete"),
    path("account/keep/", leaving.keep, name="account_keep"),
    path("account/password/", account.password_change, name="password_change"),
    path("account/password/done/", account.password_change_done, name="password_change_done"),
    path("account/two-factor/", two_factor.page, name="two_factor"),
    path("account/two-factor/add/", two_factor.add, name="two_factor_add"),
    path("account/two-factor/<uuid:pk>/remove/", two_factor.remove, name="two_factor_remove"),
    path("account/two-factor/codes/", two_factor.new_codes, name="two_factor_codes"),
    path("account/two-factor/codes/file", two_factor.codes_file, name="two_factor_codes_file"),
    path("account/two-factor/browsers/revoke", two_factor.revoke, name="two_factor_revoke"),
    path("account/activity/", activity.page, name="activity"),
    path("account/sessions/", account.sessions_page, name="account_sessions"),
    path("account/sessions/end", account.sessions_end, name="account_sessions_end"),
    path("console/", home.home, name="console_home"),
    # Before the tenants': no tenant can have the slug “platform” (tenants.hosts.RESERVED_SLUGS).
    path("console/platform/", home.platform, name="platform"),
    path("console/platform/lockouts/", lockouts.of_platform, name="platform_lockouts"),
    path("console/platform/factors/", factors.factors_reset, name="platform_factors"),
    path("console/platform/factors/done/", factors.factors_done, name="platform_factors_done"),
    path("console/<slug:slug>/", home.overview, name="console"),
    path("console/<slug:slug>/sessions/", sessions.sessions_page, name="console_sessions"),
    path("console/<slug:slug>/sessions/end", ends.sessions_end, name="console_sessions_end"),
    path("console/<slug:slug>/sessions/end-all", ends.sessions_end_all, name="console_sessions_end_all"),
    path("console/<slug:slug>/sessions/pulse", sessions.sessions_pulse, name="console_sessions_pulse"),
    path("console/<slug:slug>/sessions/<uuid:pk>/", tree.session_page, name="console_session"),
    path("console/<slug:slug>/sessions/<uuid:pk>/report", tree.session_report, name="console_session_report"),
    path("console/<slug:slug>/people/", people.page, name="console_people"),
    path("console/<slug:slug>/people/invite/", people.invite, name="console_people_invite"),
    path("console/<slug:slug>/people/act", people.act, name="console_people_act"),
    path("console/<slug:slug>/lockouts/", lockouts.of_tenant, name="console_lockouts"),
    path("api/v1/signup", api.signup),
    path("api/v1/login", api.login),
    path("api/v1/logout", api.logout),
    path("api/v1/session", api.session),
    *shared,
]
