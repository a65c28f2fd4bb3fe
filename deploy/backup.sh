#!/usr/bin/env bash
# A copy of Gatehouse's database, taken while it works: see --help.
# shellcheck source=deploy/database.sh
source "$(dirname "${BASH_SOURCE[0]}")/database.sh"

help() {
    cat <<'TEXT'
Usage: backup.sh [--keep N] [--key-file FILE] [--dry-run] DIRECTORY

Copies the database that DATABASE_URL names (DATABASE_DIRECT_URL, if set) into DIRECTORY, reads the copy back to see
that it is whole, and keeps the N newest copies (14; 0 keeps all). Gatehouse may go on working meanwhile.

  sqlite:///…     gatehouse-TIME.sqlite3, by SQLite's backup interface, never by cp
  postgres://…    gatehouse-TIME.dump, by pg_dump in its custom format

  --key-file FILE   encrypt the copy, by GnuPG with AES-256, under the first line of FILE (BACKUP_KEY_FILE does the same):
                    its name then ends with .gpg. Make one: openssl rand -base64 32. Keep it elsewhere, too: without it the
                    copy is worthless. An SQLite copy stands unencrypted in DIRECTORY while it is made.
  --dry-run         say what would be done, do nothing

A copy appears under its name only when it is complete and checked. Beside it: .facts, how many rows each table had and
which event was the newest, at the moment of the copy; .sha256, the sums of both. All can be read by their owner only.
Exit status: 0 done; 1 failed, and the older copies are all still there; 2 wrong usage.
The keys in /etc/gatehouse/credentials are not part of a copy: keep them, somewhere else. verify-backup.sh tries a copy, restore.sh
brings one back.
TEXT
}

keep=14
directory=
dry_run=
arguments=("$@")
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --keep)
            [[ ${2-} =~ ^[0-9]{1,5}$ ]] || wrong_usage "--keep wants a number"
            keep=$((10#$2))
            shift
            ;;
        --key-file)
            [[ ${2-} ]] || wrong_usage "--key-file wants a file"
            key_file=$2
            shift
            ;;
        --dry-run) dry_run=1 ;;
        -*) wrong_usage "unknown option $1" ;;
        *)
            [[ -z $directory ]] || wrong_usage "one directory, please"
            directory=$1
            ;;
    esac
    shift
done
[[ -n $directory ]] || wrong_usage "which directory?"
read_environment
# A log that root makes beside an SQLite file would keep the service from writing.
if ((${#as_service[@]})); then exec "${as_service[@]}" "${BASH_SOURCE[0]}" "${arguments[@]}"; fi
find_database

draft=
cleanup() {
    [[ -z $draft ]] || rm -f -- "$draft" "$draft"-* "$draft".*
    drop_work
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
make_work
[[ -z $key_file ]] || check_key
if [[ $dry_run ]]; then
    echo "Dry run: nothing was done. Without --dry-run the $kind database would be copied to $directory, ${key_file:+encrypted, }and $keep copies kept (0: all)."
    exit
fi

# The copy's newest events are worth as much as the older ones only if they are sealed. Without the release beside this
# script, or if it fails, the copy is taken all the same.
if [[ -x $release/.venv/bin/python ]]; then
    "$release/.venv/bin/python" "$release/manage.py" event --skip-checks seal >/dev/null ||
        echo "backup.sh: the newest events could not be sealed; the copy holds them as they are." >&2
fi

if ! mkdir -p -- "$directory" 2>/dev/null || [[ ! -w $directory ]]; then
    die "cannot write to $directory as $(id -un)"
fi
directory=$(cd -- "$directory" && pwd)
exec 9>"$directory/.lock"
flock --nonblock 9 || die "another backup is writing to $directory"
rm -f -- "$directory"/.draft.* # of a run that was killed; the lock is ours
draft=$(mktemp "$directory/.draft.XXXXXXXX") || die "cannot write to $directory"

no_space() { (($(df --output=avail -k -- "$directory" | tail -n 1) < 1024)); }

sqlite() {
    suffix=sqlite3
    python3 -I - "$lite" "$draft" <<'PYTHON' || return 1
import os, shutil, sqlite3, sys
from urllib.parse import quote

path, draft = sys.argv[1:]
if not os.path.isfile(path):
    sys.exit(f"backup.sh: there is no database at {path}")
needed = sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
free = shutil.disk_usage(os.path.dirname(draft)).free
if free < needed:
    sys.exit(f"backup.sh: the disk of {os.path.dirname(draft)} is too full: {needed >> 20} MB needed, {free >> 20} MB free")
try:
    source = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=30)
    copy = sqlite3.connect(draft)
    source.backup(copy)  # all pages in one step: one moment's state, and nobody who writes has to wait
    source.close()
    copy.execute("PRAGMA journal_mode=DELETE").fetchone()  # one file; Gatehouse turns WAL on again
    verdict = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    tables = copy.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'django_migrations'").fetchone()[0]
    copy.close()
except (sqlite3.Error, OSError) as error:
    sys.exit(f"backup.sh: SQLite says: {error}")
if verdict != "ok":
    sys.exit(f"backup.sh: the copy of {path} is damaged, and so may be the database itself: {verdict}")
if not tables:
    sys.exit(f"backup.sh: {path} is no database of Gatehouse (or its migrations never ran)")
PYTHON
    lite_facts "$draft" >"$draft.facts" || return 1
    [[ $key_file ]] || return 0
    with_key --symmetric --cipher-algo AES256 --compress-algo none --output "$draft.gpg" -- "$draft" || return 1
    with_key --decrypt -- "$draft.gpg" | cmp --silent -- "$draft" || die "the encrypted copy cannot be read back"
    mv -- "$draft.gpg" "$draft"
}

# The facts and the dump are of one moment: a session holds it until both are taken.
postgresql() {
    suffix=dump
    local snapshot line table
    coproc SESSION { exec psql --no-psqlrc --no-password --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1; }
    local in=${SESSION[0]} out=${SESSION[1]}
    echo "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();" >&"$out"
    read -r snapshot <&"$in" || return 1
    echo "SELECT coalesce(to_regclass('django_migrations')::text, 'none');" >&"$out"
    read -r table <&"$in" || return 1
    [[ $table != none ]] || die "the database holds no Gatehouse (or its migrations never ran)"
    printf '%s\n' "$FACTS" "SELECT 'end';" >&"$out"
    while read -r line <&"$in" && [[ $line != end ]]; do printf '%s\n' "$line"; done >"$draft.facts" || return 1
    [[ $line == end ]] || return 1
    if [[ $key_file ]]; then
        pg_dump --format=custom --no-password --snapshot="$snapshot" |
            with_key --symmetric --cipher-algo AES256 --compress-algo none --yes --output "$draft" || return 1
    else
        pg_dump --format=custom --no-password --snapshot="$snapshot" --file="$draft" || return 1
    fi
    exec {out}>&-
    # Reads every block of the archive, where --list would read its table of contents only.
    if [[ $key_file ]]; then
        with_key --decrypt -- "$draft" | pg_restore --file=/dev/null || return 1
    else
        pg_restore --file=/dev/null "$draft" || return 1
    fi
}

started=$SECONDS
if ! "$kind"; then
    no_space && die "the disk of $directory is full. Nothing was replaced; make room, or keep fewer copies with --keep"
    die "no copy was made"
fi

name=
while [[ -z $name || -e $directory/$name ]]; do # two copies within a second: the later one waits
    [[ -z $name ]] || sleep 0.2
    name=gatehouse-$(date --utc +%Y%m%dT%H%M%SZ).$suffix${key_file:+.gpg}
done
sum=$(sha256sum <"$draft") || die "the copy cannot be read back"
facts=$(sha256sum <"$draft.facts") || die "the facts cannot be read back"
# The sum comes first: a copy that stands under its name always has one.
if ! { sync -- "$draft" "$draft.facts" &&
    printf '%s  %s\n' "${sum%% *}" "$name" "${facts%% *}" "$name.facts" >"$directory/$name.sha256" &&
    mv -- "$draft.facts" "$directory/$name.facts" &&
    sync -- "$directory/$name.sha256" && mv -- "$draft" "$directory/$name" && sync -- "$directory"; }; then
    rm -f -- "$directory/$name.sha256" "$directory/$name.facts"
    die "the copy could not be put into place in $directory; is the disk full?"
fi
draft=

if ((keep)); then
    # The time in the name sorts by age.
    mapfile -t copies < <(cd -- "$directory" && printf '%s\n' gatehouse-*T*Z.{sqlite3,dump}{,.gpg} | grep -v '\*' | sort --field-separator=. --key=1,1 --reverse)
    for old in "${copies[@]:keep}"; do
        rm -f -- "$directory/$old" "$directory/$old.sha256" "$directory/$old.facts"
    done
fi
echo "$directory/$name ($(du --human-readable --apparent-size "$directory/$name" | cut -f1), checked${key_file:+, encrypted}, $((SECONDS - started)) s)"
