# shellcheck shell=bash disable=SC2034,SC2154 # some names are set there and read here, or the other way round
# What backup.sh, verify-backup.sh and restore.sh share. Each of them reads it; it does nothing by itself.
#
# A copy is gatehouse-TIME.sqlite3 or gatehouse-TIME.dump, with .gpg at the end if it is encrypted. Beside it, under its whole
# name: .facts, what was in the database at that moment (rows of each table, the newest event), and .sha256, the sums of both.
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
umask 077

release=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
key_file=${BACKUP_KEY_FILE-}
# python3 -I everywhere: without it Python takes modules from the folder where somebody stands, and from the home of the service's
# user, and whoever can write there would run what he likes.
work=    # a folder for what must not outlive the script; nobody else writes there, or a link could lead what root writes elsewhere
theirs=  # a folder in it, for what is done as the service's user
url=   # of the database
kind=  # sqlite or postgresql
lite=  # the file, if it is SQLite

# Root looks after files and services; what reads the database or runs the release is done as the service's user, where there is one.
as_service=()
if ((EUID == 0)) && getent passwd "${GATEHOUSE_USER:-gatehouse}" >/dev/null; then
    as_service=(runuser -u "${GATEHOUSE_USER:-gatehouse}" --)
fi

# Whoever works as another user must be able to stand where he is: /root lets nobody else in.
stand_anywhere() {
    [[ -z $key_file ]] || key_file=$(realpath --no-symlinks -- "$key_file")
    wanted=$(realpath --no-symlinks -- "$wanted" 2>/dev/null || printf %s "$wanted")
    cd /
}

make_work() {
    work=$(mktemp --directory --tmpdir gatehouse-backup-XXXXXXXX) || die "cannot write to ${TMPDIR:-/tmp}"
    theirs=$work/service
    mkdir -- "$theirs"
    ((${#as_service[@]} == 0)) || give_theirs "${as_service[2]}"
}

# give_theirs USER: it is his from now on.
give_theirs() {
    chmod 0711 "$work"
    chown "$1" "$theirs"
}

drop_work() {
    local agent=
    [[ $work ]] || return 0
    if [[ -d $work/keyring ]]; then
        # Asked to go, GnuPG's agent now and then stays: systemd waited for it, and called a good copy a failure.
        agent=$(timeout 5 gpg-connect-agent --homedir "$work/keyring" --no-autostart 'getinfo pid' /bye 2>/dev/null | sed -n 's/^D //p') || true
        if [[ $agent ]]; then kill -KILL "$agent" 2>/dev/null || true; fi
    fi
    rm -rf -- "$work"
}

# --- Where the database is --------------------------------------------------------------------------------------------

# The service's environment and its secrets, as systemd hands them over, where the caller has none of his own.
read_environment() {
    local file=${GATEHOUSE_ENV:-$ETC/gatehouse.env} line name value
    [[ -z ${DATABASE_URL-}${DATABASE_URL_FILE-} && -r $file ]] || return 0
    while IFS= read -r line; do
        [[ $line =~ ^[A-Z][A-Z0-9_]*= ]] || continue
        name=${line%%=*} value=${line#*=}
        [[ ${#value} -lt 2 || $value != [\"\']* || ${value: -1} != "${value:0:1}" ]] || value=${value:1:-1}
        [[ -z $value || -n ${!name-} ]] || export "$name=$value"
    done <"$file"
    for file in "$(dirname -- "$file")"/credentials/*; do
        [[ ! -r $file ]] || export "${file##*/}=$(<"$file")"
    done
    key_file=${key_file:-${BACKUP_KEY_FILE-}}
}

find_database() {
    local name file
    command -v python3 >/dev/null || die "python3 is not here: apt install python3"
    for name in DATABASE_URL DATABASE_DIRECT_URL; do # as portal/settings.py reads them: NAME_FILE names a file with the value
        file=${name}_FILE
        [[ -z ${!file:-} ]] || printf -v "$name" %s "$(<"${!file}")"
    done
    url=${DATABASE_DIRECT_URL:-${DATABASE_URL:-}}
    [[ $url ]] || die "DATABASE_URL is not set. The service takes it from $ETC, which root may read: sudo $me …"
    case $url in
        sqlite://*)
            kind=sqlite
            # As django-environ reads it: sqlite:///relative/path, sqlite:////absolute/path.
            lite=$(URL=$url python3 -I -c 'import os; from urllib.parse import unquote, urlsplit; print(unquote(urlsplit(os.environ["URL"]).path)[1:])')
            [[ $lite && $lite != :memory: ]] || die "a database in memory cannot be copied"
            lite=$(realpath --no-symlinks -- "$lite")
            ;;
        postgres://* | postgresql://* | psql://* | pgsql://*)
            kind=postgresql
            use_postgresql "$url"
            ;;
        *) die "DATABASE_URL must begin with sqlite:/// or postgres://, and begins with ${url%%:*}" ;;
    esac
}

# libpq's own variables: on a command line the password could be read by everybody on this machine.
use_postgresql() {
    local command settings
    for command in pg_dump pg_restore psql; do
        command -v "$command" >/dev/null || die "$command is not here: apt install postgresql-client"
    done
    settings=$(
        URL=$1 python3 -I - 2>/dev/null <<'PYTHON'
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
    ) || die "DATABASE_URL cannot be read"
    eval "$settings"
    export PGAPPNAME="$me" PGCONNECT_TIMEOUT="${PGCONNECT_TIMEOUT:-10}"
}

sql() { "${as_service[@]}" psql --no-psqlrc --no-password --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 "$@"; }

# manage.py of this release, on the database of this address: DATABASE_URL_FILE, which the units have, would count for more than
# DATABASE_URL. With libpq's variables set, postgres:///NAME is enough of an address.
manage() {
    local address=$1
    shift
    [[ -x $release/.venv/bin/python ]] || die "the release in $release has no .venv: install.sh or upgrade.sh makes one"
    (cd -- "$release" && unset DATABASE_URL_FILE && DATABASE_URL=$address PYTHONDONTWRITEBYTECODE=1 "${as_service[@]}" .venv/bin/python manage.py "$@")
}

# knows ADDRESS: this release can work with a database. After a rollback the copies are of the release that was taken back, which is
# there still: then that is the one to do the rest.
knows() {
    local back=${release%/*}/previous
    manage "$1" restored --skip-checks --check >/dev/null 2>"$work/why" && return
    if [[ ${release##*/} == current && -x $back/.venv/bin/python ]]; then
        release=$back
        manage "$1" restored --skip-checks --check >/dev/null 2>&1 && return
    fi
    cat -- "$work/why" >&2
    return 1
}

lite_url() { python3 -I -c 'import sys; from urllib.parse import quote; print("sqlite:///" + quote(sys.argv[1]))' "$1"; }

# --- Facts ------------------------------------------------------------------------------------------------------------

# SQL for psql: what is in the database, a line each, in one order on every machine.
FACTS=$(
    cat <<'SQL'
SELECT format('SELECT %L || count(*) FROM %I.%I', 'rows ' || relname || ' ', nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'p') AND nspname = 'public' ORDER BY relname COLLATE "C" \gexec
SELECT 'newest event ' || coalesce((SELECT id || ' of ' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')
FROM identity_event ORDER BY id DESC LIMIT 1), 'none');
SQL
)
readonly FACTS

# The same of an SQLite file.
lite_facts() {
    "${as_service[@]}" python3 -I - "$1" <<'PYTHON'
import sqlite3, sys
from urllib.parse import quote

try:
    with sqlite3.connect(f"file:{quote(sys.argv[1])}?mode=ro", uri=True) as base:
        for (table,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name").fetchall():
            print("rows", table, base.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
        newest = base.execute("SELECT id || ' of ' || at FROM identity_event ORDER BY id DESC LIMIT 1").fetchone()
        print("newest event", newest[0] if newest else "none")
except sqlite3.Error as error:
    sys.exit(f"SQLite says: {error}")
PYTHON
}

# --- Encryption -------------------------------------------------------------------------------------------------------

# The key file's first line is what opens and closes copies (AES-256, by GnuPG, which also notices every change).
check_key() {
    local first
    command -v gpg >/dev/null || die "gpg is not here: apt install gnupg"
    [[ -r $key_file ]] || die "the key file $key_file cannot be read as $(id -un)"
    IFS= read -r first <"$key_file" || [[ $first ]] || die "the key file $key_file is empty"
    ((${#first} >= 20)) || die "the key in $key_file is too short. Make one: openssl rand -base64 32"
    # With a folder of its own GnuPG touches nobody's keys, and leaves nothing.
    install -d -m 0700 "$work/keyring"
}

with_key() {
    gpg --homedir "$work/keyring" --no-options --no-secmem-warning --batch --quiet --no-tty --pinentry-mode loopback --no-symkey-cache --passphrase-file "$key_file" "$@"
}

# --- A copy -----------------------------------------------------------------------------------------------------------

# Whoever may write to the folder of a copy could put a link in its place while root looks: so it is read and noted as he would.
as_keeper=()

# Is this file what backup.sh wrote, for this kind of database, and can it be opened? Sets `copy` (its path) and `holds` (its kind).
check_copy() {
    local folder name
    copy=$(realpath --canonicalize-existing -- "$1" 2>/dev/null) || die "there is no copy at $1"
    [[ -f $copy ]] || die "$copy is no file"
    folder=$(dirname -- "$copy") name=$(basename -- "$copy")
    as_keeper=()
    if ((${#as_service[@]})) && { [[ $(stat --format=%U -- "$folder") == "${as_service[2]}" ]] || "${as_service[@]}" test -w "$folder"; }; then
        as_keeper=("${as_service[@]}")
    fi
    "${as_keeper[@]}" test -r "$copy" || die "$copy cannot be read as ${as_keeper[2]:-$(id -un)}"
    case ${name%.gpg} in
        *.sqlite3) holds=sqlite ;;
        *.dump) holds=postgresql ;;
        *) die "$name is not a copy by its name: gatehouse-TIME.sqlite3 or gatehouse-TIME.dump, perhaps with .gpg" ;;
    esac
    "${as_keeper[@]}" test -r "$copy.sha256" ||
        die "$copy.sha256 is not there: without it nobody can tell whether the copy is whole. Fetch it from where the copy comes from"
    "${as_keeper[@]}" grep --quiet --fixed-strings -- "  $name" "$copy.sha256" || die "$copy.sha256 is of another copy"
    if "${as_keeper[@]}" grep --quiet --fixed-strings -- "  $name.facts" "$copy.sha256" && [[ ! -e $copy.facts ]]; then
        die "$copy.facts is not there: it belongs to the copy. Fetch it from where the copy comes from"
    fi
    (cd -- "$folder" && "${as_keeper[@]}" sha256sum --check --strict --status -- "$name.sha256" 2>/dev/null) ||
        die "$copy is damaged: it is not as backup.sh wrote it. Take another copy"
    [[ $name != *.gpg ]] && return
    [[ $key_file ]] || die "$name is encrypted: name the file with its key, --key-file FILE"
    check_key
    open_copy >/dev/null 2>&1 || die "the key in $key_file does not open $name: it is another one's"
}

# note_trial: beside the copy, that it would do.
note_trial() {
    # shellcheck disable=SC2016 # the inner shell expands
    "${as_keeper[@]}" sh -c 'rm -f -- "$2" && echo "$1" >"$2"' sh \
        "$(date --utc +%Y-%m-%dT%H:%M:%SZ) $(basename -- "$copy")" "$(dirname -- "$copy")/verified" 2>/dev/null
}

open_copy() {
    case $copy in
        *.gpg) "${as_keeper[@]}" cat -- "$copy" | with_key --decrypt ;;
        *) "${as_keeper[@]}" cat -- "$copy" ;;
    esac
}

# Into an SQLite file that is not there yet, or into an empty database of PostgreSQL.
load_lite() {
    # shellcheck disable=SC2016 # the inner shell expands
    open_copy | "${as_service[@]}" sh -c 'umask 077 && cat >"$1"' sh "$1" || return 1
    "${as_service[@]}" python3 -I - "$1" <<'PYTHON'
import sqlite3, sys

try:
    verdict = sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check(1)").fetchone()[0]
except sqlite3.Error as error:
    verdict = str(error)
if verdict != "ok":
    sys.exit(f"SQLite says: {verdict}")
PYTHON
}

load_postgresql() {
    open_copy | "${as_service[@]}" pg_restore --exit-on-error --no-owner --no-privileges --no-password --dbname="$1"
}

# Does the database at this address (a file, a name) hold what the copy's facts say?
compare_facts() {
    [[ -f $copy.facts ]] || return 0 # of a copy from before there were facts
    if [[ $holds == sqlite ]]; then
        lite_facts "$1" >"$work/facts" || return 1
    else
        sql --dbname="$1" <<<"$FACTS" >"$work/facts" || return 1
    fi
    "${as_keeper[@]}" cat -- "$copy.facts" | diff -- - "$work/facts" >"$work/difference" && return
    echo "The copy does not hold what the database held (<: then, >: in the copy):" >&2
    cat -- "$work/difference" >&2
    return 1
}
