#!/usr/bin/env bash
# Gatehouse on a bare Debian machine, from packages to the operator's link: see --help.
# shellcheck source=deploy/releases.sh
source "$(dirname "${BASH_SOURCE[0]}")/releases.sh"

help() {
    cat <<'TEXT'
Usage: install.sh [OPTIONS]

Installs Gatehouse on this machine (Debian 12 or later, systemd) and ends with a link with which you become its operator.
It asks for what no option says. Run again, it changes only what differs; what you gave before it remembers.

  --portal-url URL         where people prove who they are: https://login.example.com
  --tenant-domain DOMAIN   tenants live at NAME.DOMAIN (default: the portal's host without its first label)
  --admin-email ADDRESS    yours: the certificate authority writes to it, and the operator's account should have it
  --database WHAT          local (PostgreSQL on this machine, the default), sqlite, or a URL:
                           postgres://user:password@host:5432/name?sslmode=verify-full
  --smtp URL               smtp+tls://user:password@mail.example.com:587, or none: no mail leaves
  --source SOURCE          the release: a directory, an archive, or with --tag a git repository
                           (default: the release with this script in it)
  --tag TAG                which tag of it

  TLS, the first, the second or both, or the last:
  --tls-cert FILE --tls-key FILE   the certificate for the portal and *.DOMAIN, with its chain, and its key: they stay where
                                   they are, nginx reads them there
  --acme-email ADDRESS             certificates by Let's Encrypt (certbot, HTTP-01), for each host that no other covers: now,
                                   and when one is added. This machine must be reachable under it on port 80
  --acme-directory URL             of another authority than Let's Encrypt; this machine must trust it
  --behind-proxy ADDRESSES         a proxy of yours does TLS: its addresses or networks, comma-separated. nginx speaks http on
                                   port 80, to them alone, and believes their X-Forwarded-For and X-Forwarded-Proto

  --yes                    ask nothing: take the defaults, stop where there is none
  --dry-run                say what would be done, change nothing

A URL with a password is better left to the question, or put into /etc/gatehouse/credentials/DATABASE_URL (EMAIL_URL) before:
the options of a command can be read by everybody on this machine.

  /opt/gatehouse/releases  the releases; the slots blue and green, current and previous lead to one each
  /etc/gatehouse           gatehouse.env, and the secrets in credentials/ (root alone; systemd hands them to the service)
  /var/lib/gatehouse       the data; /var/backups/gatehouse the backups

Exit status: 0 done; 1 failed, and a second run goes on from there; 2 wrong usage.
TEXT
}

portal_url='' tenant_domain='' admin_email='' database='' smtp='' source='' tag=''
tls_cert='' tls_key='' acme_email='' acme_directory='' behind_proxy='' database_url='' email_url='' reason=''
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --yes) yes=yes ;;
        --dry-run) dry_run=yes ;;
        --portal-url | --tenant-domain | --admin-email | --database | --smtp | --source | --tag | --tls-cert | --tls-key | --acme-email | --acme-directory | --behind-proxy)
            [[ -n ${2:-} ]] || wrong_usage "$1 wants a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift
            ;;
        *) wrong_usage "unknown option $1" ;;
    esac
    shift
done
need_root
[[ -n $dry_run ]] || lock
if ! command -v apt-get >/dev/null || [[ ! -d /run/systemd/system ]]; then die "this needs Debian 12 or later, with systemd"; fi
[[ ! -e $OPT/manage.py ]] || die "$OPT is a release that was installed by hand. Move it away (the data is elsewhere), then run this again"

# --- What is wanted ---------------------------------------------------------------------------------------------------
case ${tls_cert:+files}${acme_email:+acme}${behind_proxy:+proxy} in
    "" | files | acme | filesacme | proxy) ;;
    *) wrong_usage "a proxy that does TLS needs no --tls-cert and no --acme-email here" ;;
esac
tls_given=$tls_cert$acme_email$behind_proxy
if [[ -f $ETC/answers ]]; then
    while IFS='=' read -r name value; do
        case $name in
            portal_url | tenant_domain | admin_email | source) [[ -n ${!name} ]] || printf -v "$name" %s "$value" ;;
            tls_cert | tls_key | acme_email | behind_proxy) [[ -n $tls_given ]] || printf -v "$name" %s "$value" ;;
            acme_directory) [[ -n $tls_given$acme_directory ]] || printf -v "$name" %s "$value" ;;
        esac
    done <"$ETC/answers"
fi

# Each says in `wrong` what is wrong with the answer, and brings it into its form.
a_name='[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+'
right_portal_url() {
    [[ -z $portal_url || $portal_url == *://* ]] || portal_url=https://$portal_url
    portal_url=${portal_url%/}
    [[ $portal_url =~ ^https://$a_name$ ]] ||
        wrong="${portal_url:-missing}: it must look like https://login.example.com, in small letters, without a port and a path"
}
right_tenant_domain() { [[ $tenant_domain =~ ^$a_name$ ]] || wrong="${tenant_domain:-missing}: it must look like example.com"; }
right_admin_email() {
    [[ $admin_email == ?*@?*.?* && $admin_email != *[[:space:]]* ]] || wrong="${admin_email:-missing}: it must look like you@example.com"
}
right_database() {
    case $database in
        local) database_url=postgres:////run/postgresql/gatehouse ;;
        sqlite) database_url=sqlite:///$STATE/gatehouse.sqlite3 ;;
        postgres://?* | sqlite:////?*) database_url=$database ;;
        *) wrong="it must be local, sqlite, or a URL that begins with postgres://" ;; # it may hold a password: not said
    esac
}
right_smtp() {
    case $smtp in
        none) email_url= ;;
        smtp://?* | smtp+tls://?* | smtp+ssl://?*) email_url=$smtp ;;
        *) wrong="it must begin with smtp://, smtp+tls:// or smtp+ssl://, or be none" ;;
    esac
}
right_tls() { [[ $tls == acme || $tls == files || $tls == proxy ]] || wrong="$tls: it must be acme, files or proxy"; }
right_tls_cert() { openssl_reads x509 "$tls_cert" || wrong="${tls_cert:-missing}: it must be a file with a certificate in PEM"; }
right_tls_key() { openssl_reads pkey "$tls_key" || wrong="${tls_key:-missing}: it must be a file with a key in PEM, without a password"; }
right_acme_directory() {
    [[ $acme_directory =~ ^(https://[a-zA-Z0-9._:/-]+)?$ ]] || wrong="$acme_directory: it must look like https://ca.example.com/directory"
}
right_behind_proxy() {
    addresses "$behind_proxy" || wrong="${behind_proxy:-missing}: it must be addresses or networks, as 10.0.0.5,192.168.7.0/24"
}
# A bare machine has neither openssl nor python3; then nginx finds out later.
openssl_reads() { [[ -f $2 && -r $2 ]] && { ! command -v openssl >/dev/null || openssl "$1" -in "$2" -noout -passin pass: 2>/dev/null; }; }
addresses() {
    [[ -n $1 && $1 != *[^0-9a-fA-F.:/,\ ]* ]] && { ! command -v python3 >/dev/null ||
        python3 -I -c 'import ipaddress, sys; [ipaddress.ip_network(p.strip(), strict=False) for p in sys.argv[1].split(",")]' "$1" 2>/dev/null; }
}

ask portal_url "The portal's address, such as https://login.example.com"
host=${portal_url#https://}
ask tenant_domain "The tenants' domain: each lives at a name below it" "${host#*.}"
ask admin_email "Your e-mail address"
if [[ -n $database || ! -f $ETC/credentials/DATABASE_URL ]]; then
    ask database "Database: local (PostgreSQL here), sqlite, or a postgres:// URL" local
else
    database_url=$(<"$ETC/credentials/DATABASE_URL")
fi
if [[ -n $smtp || ! -f $ETC/credentials/EMAIL_URL ]]; then
    ask smtp "Mail server: smtp+tls://user:password@mail.example.com:587, or none" none
else
    email_url=$(<"$ETC/credentials/EMAIL_URL")
fi
tls=${behind_proxy:+proxy}
tls=${tls:-${tls_cert:+files}}
tls=${tls:-${acme_email:+acme}}
[[ -n $tls || -z $yes ]] || die "one of --tls-cert, --acme-email, --behind-proxy is missing"
ask tls "TLS: acme (Let's Encrypt), files, or proxy (a proxy of yours does it)" acme
case $tls in
    acme) acme_email=${acme_email:-$admin_email} ;;
    proxy) ask behind_proxy "The proxy's addresses or networks, comma-separated" ;;
    files)
        ask tls_cert "The file with the certificate and its chain"
        ask tls_key "The file with its key"
        tls_cert=$(realpath -s -- "$tls_cert") tls_key=$(realpath -s -- "$tls_key")
        ;;
esac
[[ -z $acme_directory ]] || ask acme_directory ""
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=${source:-$here}

# nginx cannot share its ports. Better said before anything is changed.
if command -v ss >/dev/null; then
    ports='sport = :443 or sport = :80'
    [[ -z $behind_proxy ]] || ports='sport = :80'
    taken=$(ss --no-header --listening --numeric --tcp --processes "$ports" | grep -v '"nginx"' || true)
    [[ -z $taken ]] || die "another program has a port that nginx needs: $(sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (process \2)/p' <<<"$taken" | sort -u | paste -sd ,). Stop it for good (systemctl disable --now …), then run this again. Nothing was changed"
fi

# --- Packages and the user --------------------------------------------------------------------------------------------
packages=(python3 python3-venv nginx curl openssl)
[[ -z $tag ]] || packages+=(git)
[[ -z $acme_email ]] || packages+=(certbot)
case $database_url in
    postgres:////*) packages+=(postgresql) ;;
    # To try a copy takes PostgreSQL's programs, too, though no server that runs.
    postgres://*) packages+=(postgresql) ;;
esac
missing=()
for package in "${packages[@]}"; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
add_packages() {
    apt-get -qq update >/dev/null 2>&1 || say "The lists of packages could not be renewed; going on with those that are here."
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@" >"$work/apt" 2>&1 || {
        tail -n 20 "$work/apt" >&2
        die "these packages could not be installed: $*. Mend what apt-get says (apt-get update, apt-get --fix-broken install), then run this again"
    }
}
if [[ $database_url == postgres://[!/]* && " ${missing[*]} " == *" postgresql "* ]]; then
    folder 0755 root:root /etc/postgresql-common/createcluster.d
    put 0644 root:root /etc/postgresql-common/createcluster.d/gatehouse.conf <<<"create_main_cluster = false"
fi
if ((${#missing[@]})); then run "install ${missing[*]}" add_packages "${missing[@]}"; fi

make_user() {
    getent group gatehouse >/dev/null || groupadd --system gatehouse
    useradd --system --gid gatehouse --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin gatehouse
}
getent passwd gatehouse >/dev/null || run "make the user gatehouse" make_user
id -nG www-data 2>/dev/null | grep -qw gatehouse || run "let nginx open the socket of gatehouse" usermod --append --groups gatehouse www-data

folder 0755 root:root "$ETC"
folder 0700 root:root "$ETC/credentials"
folder 0700 root:root "$ETC/tls"
folder 0755 root:root "$OPT"
folder 0700 gatehouse:gatehouse "$STATE"
folder 0700 gatehouse:gatehouse "$BACKUPS"

# --- The release ------------------------------------------------------------------------------------------------------
slot=$(live_slot)
slot_before=$slot
if [[ -n $slot && -f $OPT/$slot/release ]]; then
    release=$(readlink -f "$OPT/$slot")
    say "The release $(id_of "$release") is installed; upgrade.sh brings another."
else
    slot=blue
    build "$source" "$tag"
fi
from=$release
[[ -f $from/release ]] || from=$here # a dry run
link "$release" "$OPT/$slot"
link "$release" "$OPT/current"

# --- Settings and secrets ---------------------------------------------------------------------------------------------
# secret NAME COMMAND…: made once. A key that is lost takes sessions and authenticators with it.
secret() { [[ -s $ETC/credentials/$1 ]] || run "make the secret $1" _secret "$@"; }
_secret() { put 0600 root:root "$ETC/credentials/$1" < <("${@:2}") >/dev/null; }
secret SECRET_KEY python3 -I -c 'import secrets; print(secrets.token_urlsafe(50))'
secret ENCRYPTION_KEYS python3 -I -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'
url_before=$(cat "$ETC/credentials/DATABASE_URL" 2>/dev/null || true)
put 0600 root:root "$ETC/credentials/DATABASE_URL" <<<"$database_url"
put 0600 root:root "$ETC/credentials/EMAIL_URL" < <(printf %s "$email_url")

# settings: gatehouse.env with the two names in it; what else somebody wrote there stays.
settings() {
    if [[ -f $ETC/gatehouse.env ]]; then
        cat "$ETC/gatehouse.env"
    else
        sed -E -e "s#^(SECRET_KEY|ENCRYPTION_KEYS|DATABASE_URL)=.*#\# $ETC/credentials/\1 has it.#" \
            -e 's/^\#(EMAIL_URL)=$/\# \/etc\/gatehouse\/credentials\/\1 has it./' \
            -e "s/^#GRANIAN_WORKERS=.*/GRANIAN_WORKERS=$(nproc)/" "$from/deploy/gatehouse.env.example"
    fi | sed -e "s#^PORTAL_URL=.*#PORTAL_URL=$portal_url#" -e "s#^TENANT_DOMAIN=.*#TENANT_DOMAIN=$tenant_domain#"
}
settings >"$work/settings" # whatever goes wrong in there ends here: the file may have lines that nobody else knows
put 0600 root:root "$ETC/gatehouse.env" <"$work/settings"

# From another machine it comes with that one's numbers.
if [[ -f $ETC/backup.key && $(stat -c %G "$ETC/backup.key") != gatehouse ]]; then
    run "let gatehouse read $ETC/backup.key" chgrp gatehouse "$ETC/backup.key"
fi

answers_given() {
    local name
    for name in portal_url tenant_domain admin_email tls_cert tls_key acme_email acme_directory behind_proxy; do
        [[ -z ${!name} ]] || printf '%s=%s\n' "$name" "${!name}"
    done
}
put 0600 root:root "$ETC/answers" < <(answers_given)

# --- The database -----------------------------------------------------------------------------------------------------
# as_postgres COMMAND…, in a folder that this user may enter.
as_postgres() { (cd / && runuser -u postgres -- "$@"); }
asked_of_postgres() { as_postgres psql -qtAc "$1" 2>/dev/null; }
start_postgres() {
    local until=$((SECONDS + 20))
    [[ -n $(pg_lsclusters --no-header) ]] || pg_createcluster "$(find /usr/lib/postgresql -mindepth 1 -printf '%f\n' -prune | sort --version-sort | tail -n 1)" main >/dev/null
    systemctl --quiet enable --now postgresql || true
    until asked_of_postgres "select 1" >/dev/null; do
        ((SECONDS < until)) || die "PostgreSQL does not answer on this machine: pg_lsclusters; journalctl -u 'postgresql@*'. Mend it, then run this again"
        sleep 0.5
    done
}
if [[ $database_url == postgres:////run/postgresql/gatehouse ]]; then
    asked_of_postgres "select 1" >/dev/null || run "start PostgreSQL" start_postgres
    [[ $(asked_of_postgres "select 1 from pg_roles where rolname = 'gatehouse'") ]] || run "make the role gatehouse" as_postgres createuser gatehouse
    [[ $(asked_of_postgres "select 1 from pg_database where datname = 'gatehouse'") ]] ||
        run "make the database gatehouse" as_postgres createdb -O gatehouse -E UTF8 -T template0 gatehouse
fi

units_of "$from"
migrate() {
    /usr/local/sbin/gatehouse migrate --no-input --skip-checks --verbosity 0 </dev/null >"$work/migrate" 2>&1 && return
    tail -n 1 "$work/migrate" >&2
    /usr/local/sbin/gatehouse doctor --only database </dev/null >&2 || true
    if [[ -n $slot_before && -n $url_before && $url_before != "$database_url" ]]; then # what serves must find its database when it starts again
        put 0600 root:root "$ETC/credentials/DATABASE_URL" <<<"$url_before"
        die "the database could not be migrated: see above. What runs goes on with the one that it had"
    fi
    die "the database could not be migrated: see above. Mend it (another one: --database), then run this again"
}
/usr/local/sbin/gatehouse migrate --check --skip-checks </dev/null >/dev/null 2>&1 || run "migrate the database" migrate
[[ -n $(live_slot) ]] || put 0644 root:root "$UPSTREAM" <"$from/deploy/nginx-upstream.conf"
# changed_since PROPERTY UNIT PATH…: something there is newer than this moment of the unit. A run that was interrupted may have
# written what nobody has read.
changed_since() {
    local moment
    moment=$(systemctl show --property="$1" --value --timestamp=us+utc "$2")
    [[ -n $moment && -n $(find "${@:3}" -newermt "$moment" 2>/dev/null) ]]
}
begin() { start_slot "$slot" "$release" || die "$reason"; }
systemctl --quiet is-active "gatehouse@$slot" || run "start Gatehouse in the slot $slot" begin
if changed_since ActiveEnterTimestamp "gatehouse@$slot" "$ETC/gatehouse.env" "$ETC/credentials"; then
    run "start it again, with the settings as they are now (a few seconds)" begin
fi
systemctl --quiet is-enabled "gatehouse@$slot" 2>/dev/null || run "start it at every boot" systemctl --quiet enable "gatehouse@$slot"

# --- nginx and TLS ----------------------------------------------------------------------------------------------------
SITE=/etc/nginx/sites-available/gatehouse
before=$changed

# site FILE: one of the release's two, with this machine's names.
site() {
    say "# Written by install.sh. Servers of your own belong in files of their own."
    sed -e "s/login\.example\.com/$host/g" -e "s/\*\.example\.com/*.$tenant_domain/g" \
        -e "s#^ *\# each proxy#$(proxies_as '    %s 1;')#" -e "s#^\# each real_ip#$(proxies_as 'set_real_ip_from %s;')#" "$1" |
        if [[ -e /proc/net/if_inet6 ]]; then cat; else grep -v 'listen \[::\]'; fi | for_this_nginx
}

# proxies_as FORMAT: a line for each proxy, as sed's replacement.
proxies_as() {
    local proxy lines=
    for proxy in ${behind_proxy//,/ }; do
        # shellcheck disable=SC2059 # the format is ours
        lines+=$(printf "$1" "$proxy")'\n'
    done
    printf %s "${lines%\\n}"
}

put 0600 root:root "$ETC/proxies" < <(printf %s "${behind_proxy:+$behind_proxy$'\n'}")
if [[ -n $tls_cert ]]; then
    link "$tls_cert" "$ETC/tls/fullchain.pem"
    link "$tls_key" "$ETC/tls/privkey.pem"
fi
snippets_of "$from"
if [[ -n $behind_proxy ]]; then
    put 0644 root:root "$SITE" < <(site "$from/deploy/proxied-nginx.conf")
elif [[ -n $tls_cert ]]; then
    put 0644 root:root "$SITE" < <(site "$from/deploy/nginx.conf")
else # each host has a server of its own
    put 0644 root:root "$SITE" < <(site "$from/deploy/nginx.conf" | sed '/^# The portal and the tenants/,/^}/d')
fi
[[ ! -L /etc/nginx/sites-enabled/default ]] || run "take nginx's default site away: ours answers for unknown names" rm /etc/nginx/sites-enabled/default
link ../sites-available/gatehouse /etc/nginx/sites-enabled/gatehouse
reload_nginx() {
    nginx -q -t || die "nginx does not take its configuration; what runs goes on as it was"
    systemctl --quiet enable nginx
    systemctl reload-or-restart nginx || die "nginx does not start: journalctl -u nginx. Mend it, then run this again"
}
if ((changed > before)) || ! systemctl --quiet is-active nginx || changed_since StateChangeTimestamp nginx /etc/nginx "$ETC/tls"; then
    run "let nginx read its site" reload_nginx
fi
got=$("$from/deploy/certificates.sh" ${dry_run:+--dry-run}) ||
    die "${got:+$got$'\n'}there is no certificate for $host yet. Does it lead to this machine, and is port 80 open? Then run this again"
if [[ -n $got ]]; then
    say "$got"
    changed=$((changed + 1))
fi
[[ -n $dry_run ]] || served "$release" || die "nginx does not lead to Gatehouse: journalctl -u nginx -u gatehouse@$slot"

# --- Every night, and when a host is added ----------------------------------------------------------------------------
for unit in "$from"/deploy/*.{timer,path}; do
    unit=${unit##*/}
    systemctl --quiet is-active "$unit" || run "start $unit" systemctl --quiet enable --now "$unit"
done

first_backup() {
    systemctl start gatehouse-backup gatehouse-backup-verify ||
        say "There is no backup that would do: journalctl -u gatehouse-backup -u gatehouse-backup-verify"
}
[[ -f $BACKUPS/verified ]] || run "take a first backup and try it out" first_backup

# --- The end ----------------------------------------------------------------------------------------------------------
if [[ -n $dry_run ]]; then
    say "Nothing was changed. $changed steps would be done."
    exit 0
fi
((changed)) || say "Nothing to change: everything is as you asked."
if [[ -n $tls_cert && -z $acme_email ]] && ! openssl x509 -in "$tls_cert" -noout -checkhost "any.$tenant_domain" | grep -q 'does match'; then
    say "Mind: the certificate covers no tenant. Get one for *.$tenant_domain, or add --acme-email."
fi
say ""
/usr/local/sbin/gatehouse doctor </dev/null || say "The doctor found something: see above. Ask again when it is mended: gatehouse doctor"
if /usr/local/sbin/gatehouse operator --skip-checks list </dev/null | grep -q 'No operators yet'; then
    say ""
    say "Gatehouse serves at $portal_url. Open this link and sign up, as $admin_email: that account is the operator's."
    /usr/local/sbin/gatehouse operator --skip-checks link </dev/null
else
    say "Gatehouse serves at $portal_url."
fi
