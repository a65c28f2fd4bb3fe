"""What every host of ours answers, under /_portal/ so that a tenant's own site needs to hand over one path only."""

from django.urls import path, re_path

from portal.views import brand, health, language

shared = [
    path("_portal/theme", brand.theme, name="theme"),
    path("_portal/language", language.choose, name="language"),
    re_path(r"^_portal/brand/(?P<slug>[a-z0-9-]{1,63})-(?P<digest>[0-9a-f]{12})\.css$", brand.css, name="brand_css"),
    re_path(r"^_portal/brand/(?P<slug>[a-z0-9-]{1,63})-(?P<digest>[0-9a-f]{32})\.png$", brand.logo, name="brand_logo"),
    path("_portal/doctor", health.doctor),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
]
