# What every script here shares. Each of them reads it, itself or by releases.sh or database.sh; it does nothing by itself.
# shellcheck shell=bash
set -euo pipefail

# Root's steps in a unit of the service's user have that user's home from systemd, and the portal may write there: curl and certbot's
# Python would do what files in it say.
if ((EUID == 0)); then export HOME=/root; fi
export PYTHONNOUSERSITE=1

ETC=/etc/gatehouse
me=${0##*/}

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

wrong_usage() {
    printf '%s: %s (%s --help tells more)\n' "$me" "$*" "$me" >&2
    exit 2
}

# One at a time of the scripts that change which release or database serves.
lock() {
    exec 8>/run/gatehouse-deploy.lock
    flock --nonblock 8 || die "another install, upgrade, rollback or restore is at work. Wait until it has ended"
}
: "$ETC"
