#!/usr/bin/env bash
# Brings a backup back: into a new database first, then in place of the one there is. See --help.
# shellcheck source=deploy/database.sh
source "$(dirname "${BASH_SOURCE[0]}")/database.sh"

help() {
    cat <<'TEXT'
Usage: restore.sh [--key-file FILE] [--void-recovery-codes] [--no-services] [--yes] [--dry-run] COPY

Puts a copy that backup.sh made in place of the database that DATABASE_URL names:

  1. checks the copy: its sums, its kind, its key
  2. restores it into a new database beside the one there is, compares its rows with what the copy says, migrates it to
     this release; Gatehouse goes on working meanwhile
  3. makes worthless in it what may have been used or ended since: sessions, tickets, links, invitations, half-way
     sign-ins, codes of authenticators, trusted browsers, waiting mails (manage.py restored)
  4. stops Gatehouse's services, swaps the two databases, starts the services again

Until step 4 nothing that runs is touched: whatever fails, Gatehouse goes on with the database it had. The one from
before stays, under another name, until you remove it.

  --key-file FILE         what an encrypted copy is opened with (BACKUP_KEY_FILE does the same)
  --void-recovery-codes   void unused recovery codes, too: those used since the copy was taken are good again otherwise
  --no-services           stop and start nothing: you have stopped Gatehouse yourself
  --yes                   do not ask
  --dry-run               check the copy, say what would be done, do nothing

PostgreSQL: the role in DATABASE_URL, or for a server on this machine root as the user postgres, makes and renames the
databases. Exit status: 0 done; 1 failed; 2 wrong usage.
TEXT
}

wanted=
yes=
dry_run=
services=1
options=()
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
        --void-recovery-codes) options+=("$1") ;;
        --no-services) services= ;;
        --yes) yes=1 ;;
        --dry-run) dry_run=1 ;;
        -*) wrong_usage "unknown option $1" ;;
        *)
            [[ -z $wanted ]] || wrong_usage "one copy, please"
            wanted=$1
            ;;
    esac
    shift
done
[[ -n $wanted ]] || wrong_usage "which copy?"
read_environment
find_database
stand_anywhere

new=      # the new database, until it is in place
stopped=() # services that are to be started again
broken_off=() # jobs among them
waiting=() # and what starts others: timers, a path
cleanup() {
    local status=$?
    trap - EXIT HUP INT TERM
    if [[ $new ]]; then
        if [[ $kind == sqlite ]]; then
            rm -f -- "$new" "$new"-wal "$new"-shm "$new"-journal
        else
            admin --set=new="$new" <<<'DROP DATABASE IF EXISTS :"new";' 2>/dev/null || true
        fi
    fi
    start_services
    drop_work
    exit "$status"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

# Who may make databases: on a server of this machine root has the user postgres for it.
admin() {
    if ((EUID == 0)) && [[ ${PGHOST:-/} == /* ]] && getent passwd postgres >/dev/null; then
        runuser -u postgres -- env -u PGUSER -u PGPASSWORD -u SECRET_KEY -u SECRET_KEY_FALLBACKS -u ENCRYPTION_KEYS -u DATABASE_URL \
            -u DATABASE_DIRECT_URL -u EMAIL_URL psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 --dbname=postgres "$@"
    else
        sql --dbname=postgres "$@"
    fi
}

stop_services() {
    [[ $services && -d /run/systemd/system ]] || return 0
    # What a timer starts, or a new host, would open the database while it is swapped.
    mapfile -t waiting < <(systemctl list-unit-files --plain --no-legend 'gatehouse-*.timer' 'gatehouse-*.path' | cut -d ' ' -f 1 | started_again)
    ((${#waiting[@]} == 0)) || systemctl stop "${waiting[@]}"
    mapfile -t stopped < <(systemctl list-units --plain --no-legend --type=service --state=active,activating 'gatehouse*.service' | cut -d ' ' -f 1)
    if ((${#stopped[@]})); then
        echo "Stopping ${stopped[*]}"
        systemctl stop "${stopped[@]}"
    fi
    mapfile -t broken_off < <(printf '%s\n' "${stopped[@]}" | grep --fixed-strings 'gatehouse-')
    mapfile -t stopped < <({
        printf '%s\n' "${stopped[@]}"
        printf 'gatehouse@%s.service\n' blue green | started_again
    } | grep --extended-regexp '^gatehouse(@.*)?\.service$' | sort --unique)
}

# started_again < UNITS: those that run, and those that would at a boot: a restore that was killed has left them stopped.
started_again() {
    local unit
    while read -r unit; do
        if systemctl --quiet is-active "$unit" || systemctl --quiet is-enabled "$unit" 2>/dev/null; then echo "$unit"; fi
    done
}

start_services() {
    if ((${#stopped[@]})); then
        echo "Starting ${stopped[*]}"
        systemctl start "${stopped[@]}" || echo "$me: see journalctl -u ${stopped[0]}" >&2
    fi
    # The jobs begin again, and nobody waits for them.
    ((${#broken_off[@]} == 0)) || systemctl start --no-block "${broken_off[@]}" || true
    ((${#waiting[@]} == 0)) || systemctl start "${waiting[@]}" || echo "$me: see systemctl status ${waiting[*]}" >&2
    stopped=() broken_off=() waiting=()
}

untouched="Nothing was changed: Gatehouse has the database that it had"
make_work
check_copy "$wanted"
[[ $holds == "$kind" ]] || die "$wanted is a copy for $holds, and DATABASE_URL names one for $kind. $untouched"
time=$(date --utc +%Y%m%dT%H%M%SZ)
if [[ $kind == sqlite ]]; then
    there=$lite
    before=$lite.before-$time
else
    there=${PGDATABASE:?DATABASE_URL names no database}
    before=${there:0:40}_before_${time,,}
fi

echo "The copy $copy is whole. It would become $there; what is there now would be kept as $before."
if [[ $dry_run ]]; then
    echo "Dry run: nothing was done."
    exit
fi
if [[ -z $yes ]]; then
    [[ -t 0 ]] || wrong_usage "nobody is here to ask: say --yes"
    read -r -p "Everybody will be signed out, and what happened since the copy will be gone from the portal. Type yes to go on: " answer
    [[ $answer == yes ]] || die "not done. $untouched"
fi

# A server whose disk is full stops for everybody. Known only where the disk is this machine's.
room_at_server() {
    local data needed free
    [[ ${PGHOST:-/} =~ ^(/.*|localhost|127\.0\.0\.1|::1)$ ]] || return 0
    data=$(admin <<<'SHOW data_directory' 2>/dev/null) && [[ -d $data ]] || return 0
    needed=$(admin --set=there="$there" <<<"SELECT coalesce(max(pg_database_size(datname)), 0) FROM pg_database WHERE datname = :'there'")
    needed=$((2 * needed)) # it is written into PostgreSQL's log, too
    free=$(df --output=avail -B1 -- "$data" | tail -n 1)
    ((free > needed)) || die "the disk of $data is too full: $((needed >> 20)) MB needed, $((free >> 20)) MB free. $untouched"
}

# --- Beside the one there is ------------------------------------------------------------------------------------------

if [[ $services && $EUID == 0 ]]; then lock; fi
echo "Restoring into a new database; Gatehouse goes on meanwhile."
if [[ $kind == sqlite ]]; then
    folder=$(dirname -- "$lite")
    [[ -d $folder ]] || die "$folder is not there. $untouched"
    needed=$(stat --format=%s -- "$copy")
    (($(df --output=avail -B1 -- "$folder" | tail -n 1) > needed)) || die "the disk of $folder is too full: $((needed >> 20)) MB needed. $untouched"
    new=$lite.restoring-$time
    load_lite "$new" || die "the copy cannot be restored to $folder; is its disk full? $untouched"
    address=$(lite_url "$new")
else
    new=${there:0:40}_restoring_${time,,}
    owner=${PGUSER:-$("${as_service[@]}" id -un)}
    room_at_server
    admin --set=new="$new" --set=owner="$owner" <<<'CREATE DATABASE :"new" OWNER :"owner" TEMPLATE template0;' ||
        die "no new database can be made. Run this as root on the machine of the server, or let the role $owner: ALTER ROLE $owner CREATEDB. $untouched"
    load_postgresql "$new" || die "the copy cannot be restored. PostgreSQL says why above: a full disk, or a newer PostgreSQL wrote the copy. $untouched"
    address=postgres:///$new
fi
compare_facts "$new" || die "the copy is not complete. $untouched"
knows "$address" || die "this release cannot work with the copy. $untouched"
manage "$address" migrate --skip-checks --verbosity 0 || die "the copy cannot be brought to this release. $untouched"
said=$(manage "$address" restored --skip-checks --copy "$(basename -- "$copy")" "${options[@]}") || die "the restored database cannot be made safe. $untouched"

# --- In its place -----------------------------------------------------------------------------------------------------

# An open connection would go on writing into the file that is put aside.
lite_is_free() {
    [[ -e $lite ]] || return 0
    "${as_service[@]}" python3 -I - "$lite" <<'PYTHON'
import sqlite3, sys

try:
    base = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
    base.execute("PRAGMA locking_mode = EXCLUSIVE")
    base.execute("BEGIN EXCLUSIVE")
    base.execute("ROLLBACK")
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
except sqlite3.OperationalError as error:
    sys.exit(f"SQLite says: {error}")
except sqlite3.DatabaseError:
    pass  # a damaged one is what a backup is for
PYTHON
}

swap_sqlite() {
    local end
    lite_is_free || return 1
    # One file, without a log beside it; Gatehouse turns WAL on again.
    "${as_service[@]}" python3 -I -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA journal_mode = DELETE").fetchone()' "$new" || return 1
    # At every moment there is a database in its place, even if this script is killed.
    [[ ! -e $lite ]] || "${as_service[@]}" ln -T -- "$lite" "$before" || return 1
    for end in -wal -shm; do # of a damaged one, or they would be gone
        [[ ! -e $lite$end ]] || "${as_service[@]}" mv -T -- "$lite$end" "$before$end" || return 1
    done
    "${as_service[@]}" mv -T -- "$new" "$lite" || return 1
    sync -- "$folder"
}

swap_postgresql() {
    local aside='ALTER DATABASE :"there" RENAME TO :"before";'
    [[ $(admin --set=there="$there" <<<"SELECT 1 FROM pg_database WHERE datname = :'there'") ]] || aside=
    admin --set=there="$there" --set=before="$before" --set=new="$new" <<<"BEGIN; $aside ALTER DATABASE :\"new\" RENAME TO :\"there\"; COMMIT;"
}

stop_services
"swap_$kind" || die "something else still uses $there. Stop it and try again. $untouched"
new=
start_services

echo "$there is the copy $(basename -- "$copy") now. Nobody is signed in."
echo "$said"
echo "The database from before is $before. It still knows what happened since the copy:"
if [[ $kind == sqlite ]]; then
    old=$(lite_url "$before")
    remove="rm $before*"
else
    old="the address in DATABASE_URL with $before as its name"
    remove="dropdb $before"
    [[ ${PGHOST:-/} != /* ]] || remove="runuser -u postgres -- $remove"
fi
taken=$(basename -- "$copy" | sed -nE 's/^gatehouse-([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2}).*/\1-\2-\3T\4:\5Z/p')
if [[ -x /usr/local/sbin/gatehouse ]]; then
    echo "  GATEHOUSE_DATABASE=$(basename -- "$before") gatehouse event list --since ${taken:-TIME} --limit 0"
else
    echo "  manage.py event list --since ${taken:-TIME} --limit 0, with DATABASE_URL: $old"
fi
echo "When nobody needs it any more: $remove"
