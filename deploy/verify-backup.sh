#!/usr/bin/env bash
# Tries a backup out: restores it beside the running system and compares. See --help.
# shellcheck source=deploy/database.sh
source "$(dirname "${BASH_SOURCE[0]}")/database.sh"

help() {
    cat <<'TEXT'
Usage: verify-backup.sh [--key-file FILE] [--dry-run] COPY|DIRECTORY

Restores a copy (of a directory: the newest one) into a scratch database and looks whether it would do:

  1. its sums are right, and the key opens it
  2. it can be restored
  3. it has as many rows in each table as there were, and the same newest event
  4. this release can work with it: it knows its migrations, and migrates it
  5. its audit log is as it was written (manage.py event verify)

Then it notes the time and the copy in DIRECTORY/verified. The scratch database is a file in TMPDIR for SQLite. For
PostgreSQL it is a server of its own, started from the installed binaries (apt install postgresql) in TMPDIR on a socket,
and gone afterwards. The running system is not asked for anything.

  --key-file FILE   what encrypted copies are opened with (BACKUP_KEY_FILE does the same)
  --dry-run         say which copy would be tried, and how; do nothing

Exit status: 0 the copy would do; 1 it would not, or could not be tried; 2 wrong usage.
TEXT
}

wanted=
dry_run=
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --key-file)
            [[ ${2-} ]] || wrong_usage "--key-file wants a file"
            key_file=$2
            shift
            ;;
        --dry-run) dry_run=1 ;;
        -*) wrong_usage "unknown option $1" ;;
        *)
            [[ -z $wanted ]] || wrong_usage "one copy, please"
            wanted=$1
            ;;
    esac
    shift
done
[[ -n $wanted ]] || wrong_usage "which copy, or which directory of copies?"
read_environment
stand_anywhere

if [[ -d $wanted ]]; then
    newest=$(cd -- "$wanted" && printf '%s\n' gatehouse-*T*Z.{sqlite3,dump}{,.gpg} | grep -v '\*' | sort --field-separator=. --key=1,1 | tail -n 1) || true
    [[ $newest ]] || die "there is no copy in $wanted. Make one: backup.sh $wanted"
    wanted=$wanted/$newest
fi
if [[ $dry_run ]]; then
    echo "Dry run: nothing was done. Without --dry-run $wanted would be restored into a scratch database below ${TMPDIR:-/tmp}, and compared."
    exit
fi

server=
cleanup() {
    [[ -z $server ]] || "${as_server[@]}" "$server/pg_ctl" --pgdata="$theirs/data" --mode=immediate --silent stop >/dev/null 2>&1 || true
    drop_work
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
make_work
started=$SECONDS
check_copy "$wanted"

# A server for nobody but us. It refuses to run as root.
start_server() {
    local initdb
    initdb=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort --version-sort | tail -n 1)
    [[ -x $initdb ]] || initdb=$(command -v initdb) || die "there is no PostgreSQL server to try the copy on: apt install postgresql"
    as_server=("${as_service[@]}")
    if ((EUID == 0 && ${#as_server[@]} == 0)); then as_server=(runuser -u postgres --); fi
    if ((EUID == 0)); then give_theirs "${as_server[2]}"; fi
    "${as_server[@]}" "$initdb" --pgdata="$theirs/data" --username=gatehouse --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >/dev/null || return 1
    "${as_server[@]}" "$(dirname "$initdb")/pg_ctl" --pgdata="$theirs/data" --log="$theirs/log" --silent --wait \
        --options="-k $theirs -c listen_addresses= -c fsync=off -c full_page_writes=off -c jit=off" start >/dev/null || return 1
    server=$(dirname "$initdb")
    unset "${!PG@}"
    export PGHOST=$theirs PGUSER=gatehouse PGDATABASE=scratch
    echo 'CREATE DATABASE scratch;' | sql --dbname=postgres
}

if [[ $holds == sqlite ]]; then
    scratch=$theirs/scratch.sqlite3
    needed=$(stat --format=%s -- "$copy")
    (($(df --output=avail -B1 -- "$work" | tail -n 1) > needed)) || die "$work has no room for the copy ($((needed >> 20)) MB). Set TMPDIR to a larger disk"
    load_lite "$scratch" || die "$copy cannot be restored"
    address=$(lite_url "$scratch")
else
    scratch=scratch
    start_server || die "the scratch server did not start: $(tail -n 3 "$theirs/log" 2>/dev/null)"
    load_postgresql "$scratch" || die "$copy cannot be restored. If a newer PostgreSQL wrote it, install that one here"
    address=postgres:///scratch
fi
compare_facts "$scratch" || die "$copy would not do"
knows "$address" || die "$copy would not do"
manage "$address" migrate --skip-checks --verbosity 0 || die "$copy cannot be brought to this release"
# Its newest events get seals here that nobody must take for the portal's, so the heads that it logs are not passed on.
said=$(manage "$address" event verify 2>"$work/log") || die "$copy would not do: its audit log is not as it was written. $said $(tail -n 1 "$work/log")"

note_trial || echo "$me: the result could not be noted in $(dirname -- "$copy")/verified" >&2
compared="as many rows in each table as there were"
[[ -f $copy.facts ]] || compared="no facts beside it to compare its rows with"
echo "$copy would do: restored, $compared, log verified ($said) in $((SECONDS - started)) s"
