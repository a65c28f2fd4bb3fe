#!/usr/bin/env bash
# Takes the program away and leaves the data: see --help.
# shellcheck source=deploy/releases.sh
source "$(dirname "${BASH_SOURCE[0]}")/releases.sh"

help() {
    cat <<'TEXT'
Usage: uninstall.sh [--yes] [--dry-run]

Stops Gatehouse and removes its releases, units, timers and nginx site. It leaves, and says where:

  the data (/var/lib/gatehouse, or the database), the backups (/var/backups/gatehouse), settings, keys and certificates
  (/etc/gatehouse), the user gatehouse who owns them, and the packages of Debian

install.sh brings Gatehouse back, with all of it. Exit status: 0 done; 1 failed; 2 wrong usage.
TEXT
}

while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --yes) yes=yes ;;
        --dry-run) dry_run=yes ;;
        *) wrong_usage "unknown argument $1" ;;
    esac
    shift
done

need_root
lock
[[ -n $dry_run ]] || confirm "Nobody will be able to sign in any more. Take Gatehouse away?" || die "nothing was changed"

units=$(find "$UNITS" -maxdepth 1 -name 'gatehouse*' -type f -printf '%f\n')
for unit in gatehouse@blue.service gatehouse@green.service $(grep -E '\.(timer|path)$' <<<"$units" || true); do
    if systemctl --quiet is-active "$unit" || systemctl --quiet is-enabled "$unit" 2>/dev/null; then
        run "stop $unit" systemctl --quiet disable --now "$unit"
    fi
done
for unit in $units; do
    [[ ! -f $UNITS/$unit ]] || run "remove $UNITS/$unit" rm -- "$UNITS/$unit"
done
[[ -z $units ]] || run "let systemd forget them" systemctl daemon-reload
for file in /etc/nginx/sites-enabled/gatehouse /etc/nginx/sites-available/gatehouse /etc/nginx/snippets/gatehouse-{server,proxy,upstream}.conf \
    /usr/local/sbin/gatehouse; do
    [[ ! -e $file && ! -L $file ]] || run "remove $file" rm -- "$file"
done
for folder in /etc/nginx/gatehouse.d /var/lib/gatehouse-certificates; do
    [[ ! -d $folder ]] || run "remove $folder" rm -r -- "$folder"
done
if systemctl --quiet is-active nginx; then run "let nginx forget the site" systemctl reload nginx; fi
[[ ! -d $OPT ]] || run "remove $OPT" rm -rf -- "$OPT"

say ""
((changed)) || say "There was nothing to remove."
say "What is left:"
if [[ -f $ETC/credentials/DATABASE_URL ]]; then
    case $(<"$ETC/credentials/DATABASE_URL") in
        sqlite:*) say "  the data:      $STATE" ;;
        postgres:////*) say "  the data:      the database gatehouse of PostgreSQL on this machine (runuser -u postgres -- dropdb gatehouse removes it)" ;;
        *) say "  the data:      the database that $ETC/credentials/DATABASE_URL names" ;;
    esac
fi
[[ ! -d $BACKUPS ]] || say "  the backups:   $BACKUPS"
[[ ! -d $ETC ]] || say "  the keys:      $ETC (without credentials/ENCRYPTION_KEYS no authenticator in data or backups can be read)"
[[ -d $BACKUPS || -d $ETC ]] || say "  nothing of Gatehouse"
