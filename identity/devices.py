"""A browser's user agent in words: what people recognise their devices by."""

from dataclasses import dataclass
from functools import lru_cache

from django.utils.translation import gettext as _
from ua_parser import parse

KINDS = ("computer", "phone", "tablet", "other")


@dataclass(frozen=True, slots=True)
class Device:
    browser: str
    system: str
    icon: str  # "laptop", "phone" or "tablet"

    @property
    def kind(self) -> str:
        """One of `KINDS`; what has neither a browser's nor a system's name is “other”."""
        if self.icon != "laptop":
            return self.icon
        return "computer" if self.browser or self.system else "other"

    @property
    def label(self) -> str:
        """“Firefox 142 on Debian”, in the language of who reads it: what is remembered below has none."""
        if self.browser and self.system:
            return _("%(browser)s on %(system)s") % {"browser": self.browser, "system": self.system}
        return self.browser or self.system or _("Unknown browser")


@lru_cache(maxsize=2048)
def device(user_agent: str) -> Device:
    """The browser, its major version and the system; what is unknown is called so."""
    found = parse(user_agent) if user_agent else None
    browser = found.user_agent if found else None
    system = found.os.family if found and found.os else ""
    system = {"Mac OS X": "macOS", "Other": ""}.get(system, system)
    name = browser.family.replace("Mobile Safari", "Safari").replace("Chrome Mobile", "Chrome").removesuffix(" Mobile") if browser else ""
    if name and browser and browser.major:
        name = f"{name} {browser.major}"
    family = found.device.family if found and found.device else ""
    if "iPad" in family or "Tablet" in user_agent:
        icon = "tablet"
    elif system in {"iOS", "Android"} or "Mobile" in user_agent:
        icon = "phone"
    else:
        icon = "laptop"
    if system == "iOS" and family:
        system = family
    return Device(name, system, icon)
