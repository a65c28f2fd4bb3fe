#!/usr/bin/env bash
# The next release, without a failed request: see --help.
# shellcheck source=deploy/releases.sh
source "$(dirname "${BASH_SOURCE[0]}")/releases.sh"

help() {
    cat <<'TEXT'
Usage: upgrade.sh [SOURCE] [--tag TAG] [--no-backup] [--accept-migrations] [--dry-run]

Puts a new release beside the one that serves, and changes over without a failed request:

  1  builds SOURCE in /opt/gatehouse/releases/ID, its packages checked against their hashes
  2  asks the new release whether the old one can go on working while its migrations are applied
  3  takes a backup (systemctl start gatehouse-backup), then migrates the database
  4  starts the new release in the idle slot (blue or green), asks it for its id, warms it
  5  lets nginx change over, asks for the id again through nginx, then stops the old slot

People stay signed in. If a step fails, the old release goes on serving and the reason is said; the database keeps the new
schema, with which the old release works. rollback.sh goes back later, within seconds.

  SOURCE               a directory, an archive, or with --tag a git repository (default: the release with this script in it)
  --no-backup          skip step 3's backup
  --accept-migrations  go on although step 2 said no: requests may fail while it works
  --dry-run            say what would be done, change nothing

Exit status: 0 done, or nothing to do; 1 failed, and the old release serves; 2 wrong usage.
TEXT
}

source='' tag='' backup=yes accept='' reason=''
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --tag)
            tag=${2:-}
            [[ -n $tag ]] || wrong_usage "--tag wants a name"
            shift
            ;;
        --no-backup) backup= ;;
        --accept-migrations) accept=yes ;;
        --dry-run) dry_run=yes ;;
        -*) wrong_usage "unknown option $1" ;;
        *)
            [[ -z $source ]] || wrong_usage "one source, please"
            source=$1
            ;;
    esac
    shift
done
source=${source:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}

begin_change
answers "$slot" "$old" || die "before an upgrade the release that serves must be well: $reason. What is wrong: gatehouse doctor. Nothing was changed"

build "$source" "$tag"
if [[ $release == "$old" ]]; then
    say "$(id_of "$old") serves already. Nothing to do."
    exit 0
fi
if [[ -n $dry_run ]]; then
    say "would: ${backup:+back up, }migrate, start the release in the slot $(other_slot "$slot"), let nginx change over"
    exit 0
fi

failed() { die "$*. $(id_of "$old") goes on serving."; }

manage() { GATEHOUSE_RELEASE=$release /usr/local/sbin/gatehouse "$@" </dev/null; }

if ! manage upgradable --skip-checks; then
    [[ -n $accept ]] || failed "the release $(id_of "$old") could not work on while these migrations are applied (--accept-migrations goes on)"
fi
if [[ -n $backup ]]; then
    say "Back the database up."
    systemctl start gatehouse-backup || failed "there is no backup: journalctl -u gatehouse-backup"
fi
say "Migrate the database."
# A migration that waits for a lock makes everybody behind it wait, too: better that it gives up.
PGOPTIONS='-c lock_timeout=3s' manage migrate --no-input --skip-checks --verbosity 0 || failed "the migration failed"
switch_to "$release" || failed "$reason"
forget_old
say "$(id_of "$release") serves. Back to $(id_of "$old"): $OPT/current/deploy/rollback.sh"
