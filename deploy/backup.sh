#!/usr/bin/env bash
# A copy of Gatehouse's database, taken while it works: see --help.
set -euo pipefail
umask 077

help() {
    cat <<'TEXT'
Usage: backup.sh [--keep N] DIRECTORY

Copies the database that DATABASE_URL names (DATABASE_DIRECT_URL, if set) into DIRECTORY, reads the copy back to see
that it is whole, and keeps the N newest copies (14; 0 keeps all). Gatehouse may go on working meanwhile.

  sqlite:///…     gatehouse-TIME.sqlite3, by SQLite's backup interface, never by cp
  postgres://…    gatehouse-TIME.dump, by pg_dump in its custom format

A copy appears under its name only when it is complete and checked, with its SHA-256 beside it in a .sha256 file. Both
can be read by their owner only. Exit status: 0 done; 1 failed, and the older copies are all still there; 2 wrong usage.
The keys in /etc/gatehouse/credentials are not part of a copy: keep them, somewhere else. How to restore: README.md in this directory.
TEXT
}

fail() {
    echo "backup.sh: $*" >&2
    exit 1
}

wrong_usage() {
    echo "backup.sh: $* (backup.sh --help tells more)" >&2
    exit 2
}

keep=14
directory=
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
        -*) wrong_usage "unknown option $1" ;;
        *)
            [[ -z $directory ]] || wrong_usage "one directory, please"
            directory=$1
            ;;
    esac
    shift
done
[[ -n $directory ]] || wrong_usage "which directory?"
for name in DATABASE_URL DATABASE_DIRECT_URL; do # as portal/settings.py reads them: NAME_FILE names a file with the value
    file=${name}_FILE
    [[ -z ${!file:-} ]] || printf -v "$name" %s "$(<"${!file}")"
done
url=${DATABASE_DIRECT_URL:-${DATABASE_URL:-}}
[[ -n $url ]] || fail "DATABASE_URL is not set. The service takes it from /etc/gatehouse: systemctl start gatehouse-backup"
command -v python3 >/dev/null || fail "python3 is not here: apt install python3"

# The copy's newest events are worth as much as the older ones only if they are sealed. Without the release beside this
# script, or if it fails, the copy is taken all the same.
release=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -x $release/.venv/bin/python ]]; then
    "$release/.venv/bin/python" "$release/manage.py" event seal >/dev/null ||
        echo "backup.sh: the newest events could not be sealed; the copy holds them as they are." >&2
fi

if ! mkdir -p -- "$directory" 2>/dev/null || [[ ! -w $directory ]]; then
    fail "cannot write to $directory as $(id -un)"
fi
directory=$(cd -- "$directory" && pwd)
exec 9>"$directory/.lock"
flock --nonblock 9 || fail "another backup is writing to $directory"

draft=
cleanup() { [[ -z $draft ]] || rm -f -- "$draft" "$draft"-*; }
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
rm -f -- "$directory"/.draft.* # of a run that was killed; the lock is ours
draft=$(mktemp "$directory/.draft.XXXXXXXX") || fail "cannot write to $directory"

no_space() { (($(df --output=avail -k -- "$directory" | tail -n 1) < 1024)); }

sqlite() {
    suffix=sqlite3
    URL=$url python3 - "$draft" <<'PYTHON' || return 1
import os, shutil, sqlite3, sys
from urllib.parse import unquote, urlsplit

url, draft = os.environ["URL"], sys.argv[1]
# As django-environ reads it: sqlite:///relative/path, sqlite:////absolute/path.
path = unquote(urlsplit(url).path)[1:]
if not path or path == ":memory:":
    sys.exit("backup.sh: a database in memory cannot be copied")
if not os.path.isfile(path):
    sys.exit(f"backup.sh: there is no database at {os.path.abspath(path)}")
needed = sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
free = shutil.disk_usage(os.path.dirname(draft)).free
if free < needed:
    sys.exit(f"backup.sh: the disk of {os.path.dirname(draft)} is too full: {needed >> 20} MB needed, {free >> 20} MB free")
try:
    source = sqlite3.connect(f"file:{path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode=rw", uri=True, timeout=30)
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
}

postgresql() {
    suffix=dump
    local command settings
    for command in pg_dump pg_restore; do
        command -v "$command" >/dev/null || fail "$command is not here: apt install postgresql-client"
    done
    # libpq's own variables: on a command line the password could be read by everybody on this machine.
    settings=$(
        URL=$url python3 - 2>/dev/null <<'PYTHON'
import os, shlex
from urllib.parse import parse_qsl, unquote, urlsplit

url = urlsplit(os.environ["URL"])
user, _, places = url.netloc.rpartition("@")
name, _, password = user.partition(":")
hosts, ports = [], []
for place in places.split(","):
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    hosts.append(unquote(host if colon else place).strip("[]"))
    ports.append(port if colon else "")
folder, _, database = url.path[1:].rpartition("/")  # postgres:////run/postgresql/gatehouse names a socket's folder
given = {
    "PGUSER": unquote(name),
    "PGPASSWORD": unquote(password),
    "PGHOST": ",".join(hosts) or unquote(folder),
    "PGPORT": ",".join(port or "5432" for port in ports) if any(ports) else "",
    "PGDATABASE": unquote(database),
}
libpq = "host port user password sslmode sslrootcert sslcert sslkey sslcrl target_session_attrs connect_timeout options channel_binding passfile service"
names = {"target_session_attrs": "PGTARGETSESSIONATTRS", "connect_timeout": "PGCONNECT_TIMEOUT", "channel_binding": "PGCHANNELBINDING"}
for key, value in parse_qsl(url.query):
    if key in libpq.split():
        given[names.get(key, f"PG{key.upper()}")] = value
for key, value in given.items():
    if value:
        print(f"export {key}={shlex.quote(value)}")
PYTHON
    ) || fail "DATABASE_URL cannot be read"
    eval "$settings"
    export PGAPPNAME=gatehouse-backup PGCONNECT_TIMEOUT="${PGCONNECT_TIMEOUT:-10}"
    pg_dump --format=custom --no-password --file="$draft" || return 1
    # Reads every block of the archive, where --list would read its table of contents only.
    pg_restore --file=/dev/null "$draft" || return 1
    pg_restore --list "$draft" | grep 'TABLE DATA .* django_migrations ' >/dev/null ||
        fail "the database holds no Gatehouse (or its migrations never ran)"
}

started=$SECONDS
case $url in
    sqlite://*) kind=sqlite ;;
    postgres://* | postgresql://* | psql://* | pgsql://*) kind=postgresql ;;
    *) fail "DATABASE_URL must begin with sqlite:/// or postgres://, and begins with ${url%%:*}" ;;
esac
if ! "$kind"; then
    no_space && fail "the disk of $directory is full. Nothing was replaced; make room, or keep fewer copies with --keep"
    fail "no copy was made"
fi

name=
while [[ -z $name || -e $directory/$name ]]; do # two copies within a second: the later one waits
    [[ -z $name ]] || sleep 0.2
    name=gatehouse-$(date --utc +%Y%m%dT%H%M%SZ).$suffix
done
sum=$(sha256sum <"$draft") || fail "the copy cannot be read back"
# The sum comes first: a copy that stands under its name always has one.
if ! { sync -- "$draft" && printf '%s  %s\n' "${sum%% *}" "$name" >"$directory/$name.sha256" &&
    sync -- "$directory/$name.sha256" && mv -- "$draft" "$directory/$name" && sync -- "$directory"; }; then
    rm -f -- "$directory/$name.sha256"
    fail "the copy could not be put into place in $directory; is the disk full?"
fi
draft=

if ((keep)); then
    # The time in the name sorts by age.
    mapfile -t copies < <(cd -- "$directory" && printf '%s\n' gatehouse-*T*Z.sqlite3 gatehouse-*T*Z.dump | grep -v '\*' | sort --field-separator=. --key=1,1 --reverse)
    for old in "${copies[@]:keep}"; do
        rm -f -- "$directory/$old" "$directory/$old.sha256"
    done
fi
echo "$directory/$name ($(du --human-readable --apparent-size "$directory/$name" | cut -f1), checked, $((SECONDS - started)) s)"
