# What install.sh, upgrade.sh, rollback.sh and uninstall.sh share. Each of them reads it; it does nothing by itself.
# shellcheck shell=bash
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
umask 022

OPT=/opt/gatehouse
STATE=/var/lib/gatehouse
BACKUPS=/var/backups/gatehouse
UPSTREAM=/etc/nginx/snippets/gatehouse-upstream.conf
UNITS=/etc/systemd/system
KEEP=3 # releases, the one that serves among them
: "$STATE" "$BACKUPS" "$KEEP"

# --- Speaking and asking ----------------------------------------------------------------------------------------------
yes=
dry_run=
changed=0
work=$(mktemp -d /tmp/gatehouse.XXXXXXXX)
building= # half a release: it goes with the script
trap 'rm -rf -- "$work" ${building:+"$building"}' EXIT

need_root() { ((EUID == 0)) || die "run it as root: sudo $me …"; }

# ask NAME QUESTION [DEFAULT]: the variable NAME has a value that right_NAME, which sets `wrong`, has nothing against. What no
# option has given is asked for, again and again until it is right; with --yes it is the default.
ask() {
    local given=${!1}${yes:+yes} answer wrong
    while true; do
        if [[ -z $given ]]; then
            { : </dev/tty; } 2>/dev/null || die "--${1//_/-} is missing, and nobody is here to ask: see --help"
            read -r -p "$2${3:+ [$3]}: " answer </dev/tty || die "no answer; give it as --${1//_/-}, see --help"
            printf -v "$1" %s "$answer"
        fi
        [[ -n ${!1} ]] || printf -v "$1" %s "${3:-}"
        wrong=
        "right_$1"
        [[ -n $wrong ]] || return 0
        [[ -z $given ]] || die "--${1//_/-}: $wrong"
        say "$wrong"
        printf -v "$1" %s ''
    done
}

# confirm QUESTION
confirm() {
    local answer
    [[ -z $yes ]] || return 0
    { : </dev/tty; } 2>/dev/null || die "nobody is here to ask: say --yes. Nothing was changed"
    read -r -p "$1 [y/N] " answer </dev/tty || return 1
    [[ $answer == [yY]* ]]
}

# --- Changing things, each only where it differs ----------------------------------------------------------------------
# run TEXT COMMAND…: says what is done, and does it unless this is a dry run.
run() {
    changed=$((changed + 1))
    if [[ -n $dry_run ]]; then
        say "would: $1"
    else
        say "$1"
        "${@:2}"
    fi
}

# put MODE OWNER:GROUP FILE < TEXT: a file of exactly this text.
put() {
    local text
    text=$(cat && printf .) # the dot keeps the last line's end
    text=${text%.}
    if [[ -f $3 ]] && cmp -s "$3" <(printf %s "$text") && [[ $(stat -c '%a %U:%G' "$3") == "${1#0} $2" ]]; then
        return
    fi
    run "write $3" _put "$1" "$2" "$3" "$text"
}

# Each step asks for the one before: where a caller looks at what comes back, bash goes on after a failure, and what a full disk has
# left of a draft must not take the file's place.
_put() {
    local draft=$3.new
    install -m 0600 /dev/null "$draft" && printf %s "$4" >"$draft" && chown "$2" "$draft" && chmod "$1" "$draft" && mv -f -- "$draft" "$3" && return
    rm -f -- "$draft"
    say "$3 cannot be written; it is as it was." >&2
    return 1
}

# folder MODE OWNER:GROUP DIRECTORY
folder() {
    [[ -d $3 && $(stat -c '%a %U:%G' "$3") == "${1#0} $2" ]] || run "make $3" install -d -m "$1" -o "${2%:*}" -g "${2#*:}" "$3"
}

# link TARGET NAME
link() { [[ $(readlink "$2") == "$1" ]] || run "link $2 to $1" ln -sfn -- "$1" "$2"; }

# --- Releases ---------------------------------------------------------------------------------------------------------
# fetch SOURCE TAG DIRECTORY: the files of a directory, an archive, or a tag of a git repository.
fetch() {
    local source=$1 tag=$2 to=$3 top
    if [[ -n $tag ]]; then
        command -v git >/dev/null || die "a tag needs git: apt install git"
        git clone --quiet --depth 1 --branch "$tag" -- "$source" "$to" 2>&1 || die "$source has no tag $tag, or cannot be reached"
    elif [[ -d $source ]]; then
        tar -C "$source" --exclude=.git --exclude=./.venv --exclude=./var --exclude=./release --exclude=__pycache__ \
            --exclude='*.pyc' --exclude='*.mo' -cf - . | tar -C "$to" -xf - --no-same-owner || die "$source cannot be copied: see above. What runs goes on as it was"
    elif [[ -f $source && $source == *.zip ]]; then
        python3 -I -m zipfile -e "$source" "$to" || die "$source cannot be unpacked"
    elif [[ -f $source ]]; then
        tar -C "$to" --no-same-owner -xf "$source" || die "$source cannot be unpacked"
    else
        die "there is no $source: name a directory, an archive, or a git repository with --tag"
    fi
    rm -rf -- "$to/.git"
    if [[ ! -f $to/manage.py ]]; then # an archive with one folder at its top
        top=$(find "$to" -mindepth 1 -maxdepth 1 -type d)
        [[ -f $top/manage.py ]] || die "$source holds no release of Gatehouse: there is no manage.py in it"
        find "$top" -mindepth 1 -maxdepth 1 -exec mv -t "$to" -- {} +
        rmdir -- "$top"
    fi
    rm -rf -- "$to/tests" "$to/.ci" "$to/requirements-dev.txt" # what only a developer runs
    [[ -f $to/deploy/lib.sh && -f $to/requirements.txt ]] || die "$source is no release that these scripts can install"
}

# release_id DIRECTORY: its version, and the hash of what is in it. The same files have the same id, wherever they come from.
release_id() {
    local version sum
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$1/pyproject.toml")
    sum=$(tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0644 -cf - . | sha256sum)
    printf '%s-%s\n' "${version:-0}" "${sum:0:10}"
}

# build SOURCE TAG: puts the release into $OPT/releases/ID with its packages, each checked against its hash. Sets `release`.
build() {
    local draft=$work/release id
    mkdir -- "$draft"
    fetch "$1" "$2" "$draft"
    id=$(release_id "$draft")
    release=$OPT/releases/$id
    [[ ! -f $release/release ]] || return 0
    building=$release
    run "build the release $id in $release (a minute)" _build "$draft" "$id"
    building=
}

_build() {
    local python=$release/.venv/bin/python
    rm -rf -- "$release" # of a build that was interrupted
    install -d -m 0755 "$OPT/releases" "$release"
    (($(df --output=avail -k "$OPT" | tail -n 1) > 512 * 1024)) || die "less than 512 MB are free in $OPT. Make room, then run this again; what runs goes on as it was"
    cp -r --no-preserve=mode,ownership -- "$1/." "$release/"
    chmod 0755 "$release"/deploy/*.sh "$release/deploy/gatehouse" "$release/deploy/with-credentials"
    python3 -I -m venv "$release/.venv" || die "no virtual environment: apt install python3-venv"
    "$python" -m pip install -qq --disable-pip-version-check --no-input --require-hashes --only-binary :all: \
        -r "$release/requirements.txt" || die "pip could not install the packages: see above. What runs goes on as it was; run this again when pip's index can be reached"
    furnish "$release" || die "the release could not be built: see above. What runs goes on as it was"
    chmod -R go=rX -- "$release"
    printf '%s\n' "$2" >"$release/release" # the last step: a release without it is not complete
}

# furnish DIRECTORY: what is made of a release's files when its packages are there: byte code, catalogs, static files.
furnish() (
    cd -- "$1" &&
        .venv/bin/python -m compileall -q portal identity tenants &&
        .venv/bin/python -m portal.catalogs &&
        # Static files need no secret and no database; these stand in for both.
        PORTAL_URL=https://build.invalid TENANT_DOMAIN=invalid SECRET_KEY=build DATABASE_URL=sqlite://:memory: \
            ENCRYPTION_KEYS=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= .venv/bin/python manage.py collectstatic --no-input --verbosity 0
)

# The names that pages of another release ask for: whoever has such a page open still gets its style and its scripts.
share_static() {
    tar -C "$1/var/static" -cf - . | tar -C "$2/var/static" --skip-old-files -xf -
    tar -C "$2/var/static" -cf - . | tar -C "$1/var/static" --skip-old-files -xf -
}

live_slot() { [[ ! -f $UPSTREAM ]] || sed -n '0,/^server/s#^server .*gatehouse-\(blue\|green\)/.*#\1#p' "$UPSTREAM"; }
other_slot() { if [[ $1 == blue ]]; then say green; else say blue; fi; }
id_of() { cat -- "$1/release"; }

# forget_old: keeps the newest releases, and never removes one that a link names.
forget_old() {
    local used directory count=0
    used=$(readlink -f "$OPT/current" "$OPT/previous" "$OPT/blue" "$OPT/green" 2>/dev/null || true)
    while read -r directory; do
        count=$((count + 1))
        if ((count > KEEP)) && ! grep -qxF -- "$directory" <<<"$used"; then
            run "remove the old release ${directory##*/}" rm -rf -- "$directory"
        fi
    done < <(find "$OPT/releases" -mindepth 2 -maxdepth 2 -name release -printf '%T@ %h\n' | sort -rn | cut -d' ' -f2-)
}

# --- What a release brings for systemd and nginx ----------------------------------------------------------------------
units_of() {
    local unit before=$changed
    for unit in "$1"/deploy/*.{service,timer,path}; do
        [[ ! -f $unit ]] || put 0644 root:root "$UNITS/${unit##*/}" <"$unit" || return 1
    done
    put 0755 root:root /usr/local/sbin/gatehouse <"$1/deploy/gatehouse" || return 1
    if ((changed > before)); then run "let systemd read them" systemctl daemon-reload; fi
}

# for_this_nginx < SERVERS: from 1.25.1 on nginx wants a line of its own for http2, and warns of the other.
for_this_nginx() {
    if [[ $(nginx -v 2>&1) =~ /1\.([0-9]+)\. ]] && ((BASH_REMATCH[1] > 25)); then
        sed -E -e 's/ ssl http2/ ssl/' -e 's/^( *)listen 443 ssl.*/&\n\1http2 on;/'
    else
        cat
    fi
}

snippets_of() {
    put 0644 root:root /etc/nginx/snippets/gatehouse-server.conf <"$1/deploy/nginx-server.conf" || return 1
    if [[ -s $ETC/proxies ]]; then # the scheme is what the proxy in front says
        put 0644 root:root /etc/nginx/snippets/gatehouse-proxy.conf \
            < <(sed "s/X-Forwarded-Proto \$scheme/X-Forwarded-Proto \$gatehouse_scheme/" "$1/deploy/nginx-proxy.conf")
    else
        put 0644 root:root /etc/nginx/snippets/gatehouse-proxy.conf <"$1/deploy/nginx-proxy.conf"
    fi
}

# --- Slots ------------------------------------------------------------------------------------------------------------
# answers SLOT RELEASE: the slot is ready, and it is this release that answers. Tries for 30 seconds.
answers() {
    local until=$((SECONDS + 30)) answer=
    while ((SECONDS < until)); do
        # The socket is the service's: what it says comes to a terminal of root.
        answer=$(curl --silent --max-time 5 --unix-socket "/run/gatehouse-$1/gatehouse.sock" http://localhost/readyz | head -c 1000 | tr -cd '[:print:]') || true
        [[ $answer != *"\"ready\", \"release\": \"$(id_of "$2")\""* ]] || return 0
        sleep 0.2
    done
    reason="the slot $1 is not ready with $(id_of "$2"); it says: ${answer:-nothing}"
    return 1
}

# start_slot SLOT RELEASE: on failure `reason` says why.
start_slot() {
    systemctl stop "gatehouse@$1" 2>/dev/null || true
    ln -sfn -- "$2" "$OPT/$1"
    systemctl reset-failed "gatehouse@$1" 2>/dev/null || true
    if ! systemctl start "gatehouse@$1"; then
        reason="the slot $1 did not start: journalctl -u gatehouse@$1"
        return 1
    fi
    answers "$1" "$2" || return 1
    warm "$1"
}

# The first page of each worker costs templates and connections: not for a person to wait for.
warm() {
    local host round
    host=$(portal_host)
    for round in {1..12}; do
        curl --silent --max-time 10 --output /dev/null --unix-socket "/run/gatehouse-$1/gatehouse.sock" \
            -H "Host: $host" -H "X-Forwarded-Proto: https" "http://localhost/login/?$round" &
    done
    wait
}

portal_host() { sed -n 's#^PORTAL_URL=https://\([^:/]*\).*#\1#p' "$ETC/gatehouse.env"; }

# point SLOT: nginx sends what comes from now on to this slot.
point() {
    put 0644 root:root "$UPSTREAM" <<TEXT || return 1
# The slot that serves: upgrade.sh and rollback.sh write this file and reload nginx. Why three times: see gatehouse-proxy.conf.
server unix:/run/gatehouse-$1/gatehouse.sock max_fails=0;
server unix:/run/gatehouse-$1/gatehouse.sock max_fails=0;
server unix:/run/gatehouse-$1/gatehouse.sock max_fails=0;
TEXT
    nginx -q -t || return 1
    systemctl reload nginx
}

# served RELEASE: nginx answers with this release, ten times in a row.
served() {
    local until=$((SECONDS + 20)) good=0 host
    local -a way
    host=$(portal_host)
    if [[ -s $ETC/proxies ]]; then
        way=(-H "Host: $host" http://127.0.0.1/readyz)
    else
        way=(--insecure --resolve "$host:443:127.0.0.1" "https://$host/readyz")
    fi
    while ((good < 10)); do
        if [[ $(curl --silent --max-time 5 "${way[@]}") == *"\"$(id_of "$1")\""* ]]; then
            good=$((good + 1))
        else
            ((SECONDS < until)) || return 1
            good=0
            sleep 0.2
        fi
    done
}

# Workers of nginx that began before the last reload may still hand requests to the old slot.
nginx_settled() {
    local until=$((SECONDS + 40))
    while grep -qs 'nginx: worker process is shutting [d]own' /proc/[0-9]*/cmdline && ((SECONDS < until)); do sleep 0.2; done
}

# begin_change: what an upgrade and a rollback begin with. Ends what a killed one has left; sets `slot` and `old`, which serve.
begin_change() {
    need_root
    lock
    [[ -n $(live_slot) ]] || die "Gatehouse is not installed here: install.sh does that"
    recover
    need_nginx
    slot=$(live_slot)
    old=$(readlink -f "$OPT/$slot")
}

# switch_to RELEASE: starts it in the slot that is idle, lets nginx change over, stops the other slot. If anything fails, the
# slot that served goes on serving, and `reason` says what it was.
switch_to() {
    local to=$1 old new from
    old=$(live_slot)
    new=$(other_slot "$old")
    from=$(readlink -f "$OPT/$old")
    say "Start $(id_of "$to") in the slot $new."
    share_static "$from" "$to"
    reason="its units cannot be written"
    if ! units_of "$to" >/dev/null || ! start_slot "$new" "$to" || ! change_over "$new" "$to"; then
        say "Back to $(id_of "$from")."
        units_of "$from" >/dev/null
        snippets_of "$from" >/dev/null
        point "$old" >/dev/null || true
        nginx_settled
        systemctl --quiet disable "gatehouse@$new"
        systemctl stop "gatehouse@$new" || true
        ln -sfn -- "$from" "$OPT/$new" # what does not work must not be there to be started
        return 1
    fi
    settle "$new"
}

# settle SLOT: this is what serves, after a boot too; the other slot stops.
settle() {
    local to other from
    to=$(readlink -f "$OPT/$1")
    other=$(other_slot "$1")
    from=$(readlink -f "$OPT/$other")
    if [[ $(readlink -f "$OPT/current") != "$to" ]]; then
        ln -sfn -- "$from" "$OPT/previous"
        ln -sfn -- "$to" "$OPT/current"
    fi
    systemctl --quiet enable "gatehouse@$1"
    systemctl --quiet disable "gatehouse@$other"
    nginx_settled
    systemctl stop "gatehouse@$other"
}

# Who changes over by nginx needs it to run, and to take its configuration as it is.
need_nginx() {
    systemctl --quiet is-active nginx || die "nginx does not run, so nobody reaches Gatehouse: systemctl start nginx, or journalctl -u nginx. Then run this again; nothing was changed"
    nginx -q -t || die "nginx would not take its configuration as it is: see above. Mend it, then run this again; nothing was changed"
}

# recover: ends what a run that was killed has left half done. The slot that nginx's file names is to serve, if it can.
recover() {
    local slot other to
    slot=$(live_slot)
    other=$(other_slot "$slot")
    to=$(readlink -f "$OPT/$slot")
    if [[ $(readlink -f "$OPT/current") == "$to" ]] && systemctl --quiet is-enabled "gatehouse@$slot" &&
        ! systemctl --quiet is-enabled "gatehouse@$other" 2>/dev/null && ! systemctl --quiet is-active "gatehouse@$other"; then
        return
    fi
    [[ -z $dry_run ]] || die "an upgrade or a rollback was broken off; the next one ends it first"
    say "An upgrade or a rollback was broken off: end it."
    systemctl start "gatehouse@$slot" || true
    if answers "$slot" "$to"; then
        point "$slot" >/dev/null || die "nginx did not take its configuration: nginx -t"
    else
        slot=$other
        systemctl start "gatehouse@$slot" || true
        answers "$slot" "$(readlink -f "$OPT/$slot")" || die "neither slot is ready: $reason"
        point "$slot" >/dev/null || die "nginx did not take its configuration: nginx -t"
    fi
    settle "$slot"
    say "$(id_of "$(readlink -f "$OPT/$slot")") serves."
}

change_over() {
    say "nginx changes over to the slot $1."
    systemctl --quiet enable "gatehouse@$1" # a machine that boots in between starts both
    reason="nginx's files cannot be written"
    snippets_of "$2" >/dev/null || return 1
    reason="nginx did not take its configuration: nginx -t"
    point "$1" >/dev/null || return 1
    reason="through nginx, $(id_of "$2") did not answer within 20 s"
    served "$2"
}
