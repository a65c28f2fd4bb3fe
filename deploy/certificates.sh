#!/usr/bin/env bash
# A certificate for every host, and a server of nginx for each that needs its own: see --help.
# shellcheck source=deploy/releases.sh
source "$(dirname "${BASH_SOURCE[0]}")/releases.sh"
export LC_ALL=C # [a-z] is these 26 letters

help() {
    cat <<'TEXT'
Usage: certificates.sh [--now] [--renew] [--dry-run] [HOST...]

Sees to it that every host of Gatehouse has a certificate: the portal, each tenant, further hosts that are approved, and apps
whose name leads to this machine. gatehouse-certificates.service runs it when a host was added or removed, and every hour.
For each host the first of these that is good:

  /etc/gatehouse/tls/HOST/fullchain.pem and privkey.pem     yours, for this host
  the one that install.sh was given by --tls-cert
  one from the authority, by certbot and HTTP-01, if install.sh was given --acme-email; renewed when a third of its time is left

A host that DNS does not lead here is not asked for. What the authority refuses is asked for again after 1, 2, 4 … 24 hours.
For each tenant the authority is asked for 10 hosts in seven days, so that no tenant uses up what it grants to all, and for
20 at once; the rest has its turn later. A host with a server of your own in nginx is left to that. One that fails keeps no
other from its own, and has its reason in the journal and in gatehouse doctor.

  HOST…       look at these alone
  --now       ask for everything that is missing, whatever was refused or granted lately
  --renew     get new certificates for what has one from the authority
  --dry-run   say what would be done, ask nobody, change nothing

Keys and account: /etc/gatehouse/acme. For nginx: /etc/nginx/gatehouse.d. If nginx does not take it, what runs goes on as it was.
Exit status: 0 done, even if a tenant's host has none yet; 1 failed, or the portal itself has none; 2 wrong usage.
TEXT
}

PLACE=/var/lib/gatehouse-certificates # waiting/HOST: when to ask again, and why it has none; asked: when, which tenant, which host
GIVEN=$ETC/tls
ACME=$ETC/acme
NGINX=/etc/nginx/gatehouse.d
WEBROOT=/var/www/html
SHARE=10   # hosts of one tenant in seven days
AT_ONCE=20 # new certificates of one run

# The unit does it in two steps: --prepare FILE, as root without any capability, with the list of hosts that the service's user
# wrote; --take, which tests what came of it and lets nginx read it. By hand it is one.
step='' list='' now='' renew='' has='' only=()
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --now) now=yes ;;
        --renew) renew=yes ;;
        --dry-run) dry_run=yes ;;
        --prepare)
            [[ -n ${2:-} ]] || wrong_usage "--prepare wants a file"
            step=prepare list=$2
            shift
            ;;
        --take) step=take ;;
        -*) wrong_usage "unknown option $1" ;;
        *) only+=("$1") ;;
    esac
    shift
done

# A warning of the unit, for the journal, or by hand.
warn() {
    if [[ -n $step ]]; then say "<4>$*"; else say "$*" >&2; fi
}

# is_host NAME: tenants name hosts, and these become names of files and words of nginx.
is_host() {
    local label='[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'
    [[ ${#1} -le 253 && $1 =~ ^$label(\.$label)+$ && ${1##*.} =~ [a-z] ]]
}

# --- What there is ----------------------------------------------------------------------------------------------------
portal_url='' tenant_domain='' tls_cert='' tls_key='' acme_email='' acme_directory='' behind_proxy=''
read_answers() {
    local name value
    [[ -f $ETC/answers ]] || die "Gatehouse is not installed here: install.sh does that"
    while IFS='=' read -r name value; do
        case $name in
            portal_url | tenant_domain | tls_cert | tls_key | acme_email | acme_directory | behind_proxy) printf -v "$name" %s "$value" ;;
        esac
    done <"$ETC/answers"
}

# read_hosts FILE: lines of HOST KIND TENANT. Fills `hosts`, `kind` and `tenant`.
hosts=()
declare -A kind=() tenant=()
read_hosts() {
    local host what whose refused=0
    [[ -f $1 ]] || die "there is no list of hosts: $1"
    while IFS=' ' read -r host what whose; do
        if ! is_host "$host" || [[ ! $what =~ ^(portal|tenant|host|app)$ || ! $whose =~ ^(-|[a-z0-9-]{1,63})$ ]]; then
            refused=$((refused + 1))
        elif [[ -z ${kind[$host]:-} ]]; then
            hosts+=("$host")
            kind[$host]=$what tenant[$host]=$whose
        fi
    done <"$1"
    ((refused == 0)) || warn "$refused lines of the list name no host; they were left out."
    [[ ${kind[${portal_url#https://}]:-} == portal ]] || die "the list of hosts has no portal; everything stays as it is"
}

# Names that a server of somebody else answers for: a site that keeps its server, an app's proxy on this machine.
others=
read_others() {
    others=$(find /etc/nginx/conf.d /etc/nginx/sites-enabled -maxdepth 1 ! -name gatehouse \( -type f -o -type l \) \
        -exec sed 's/#.*//' {} + 2>/dev/null | tr '\n\t' '  ' | grep -oE '(^|[ ;{])server_name [^;]*' | tr ' ' '\n' || true)
}
is_served_elsewhere() { grep -qxF -- "$1" <<<"$others"; }

# --- Is a certificate good? -------------------------------------------------------------------------------------------
covers() { openssl x509 -in "$1" -noout -checkhost "$2" 2>/dev/null | grep -q 'does match'; }

# wrong_with CERTIFICATE KEY HOST: what is, in words. nginx would take none of the hosts if it could not read one of these.
wrong_with() {
    if [[ ! -r $1 || ! -r $2 ]]; then
        say "$1 or $2 is not there"
    elif ! openssl x509 -in "$1" -noout 2>/dev/null; then
        say "$1 is no certificate"
    elif ! covers "$1" "$3"; then
        say "$1 does not cover $3"
    elif [[ $(openssl x509 -in "$1" -noout -pubkey) != "$(openssl pkey -in "$2" -passin pass: -pubout 2>/dev/null)" ]]; then
        say "$2 is not its key, or has a password"
    elif ! openssl x509 -in "$1" -noout -checkend 0 >/dev/null; then
        say "$1 has run out"
    fi
}

# is_due CERTIFICATE: less than a third of its time is left, or it is damaged.
is_due() {
    local from until
    openssl x509 -in "$1" -noout 2>/dev/null || return 0
    from=$(date -d "$(openssl x509 -in "$1" -noout -startdate | cut -d= -f2)" +%s)
    until=$(date -d "$(openssl x509 -in "$1" -noout -enddate | cut -d= -f2)" +%s)
    ((EPOCHSECONDS > until - (until - from) / 3))
}

# --- The authority ----------------------------------------------------------------------------------------------------
# refuse HOST REASON [later]: notes why it has none. It is tried again in the next run; later: after 1, 2, 4 … 24 hours.
refuse() {
    local when=0 times=0
    warn "$1 has no ${has:+new }certificate: $2"
    [[ -z $dry_run ]] || return 0
    if [[ ${3:-} == later ]]; then
        [[ ! -f $PLACE/waiting/$1 ]] || read -r _ times <"$PLACE/waiting/$1"
        when=$((EPOCHSECONDS + 3600 * (times < 5 ? 1 << times : 24))) times=$((times + 1))
    fi
    printf '%s %s\n%s\n' "$when" "$times" "$2" >"$PLACE/waiting/$1"
}

# waits HOST: the authority refused it, and its time has not come.
waits() { [[ -z $now && -f $PLACE/waiting/$1 && $(head -n 1 "$PLACE/waiting/$1" | cut -d' ' -f1) -gt $EPOCHSECONDS ]]; }

# is_settled HOST: nothing is to be noted of it any more.
is_settled() { [[ -n $dry_run ]] || rm -f -- "$PLACE/waiting/$1"; }

# has_share HOST: its tenant has not had its share of these seven days, or this host is in it already.
has_share() {
    [[ -n $now || ${tenant[$1]} == - ]] && return
    awk -v since="$((EPOCHSECONDS - 7 * 86400))" -v whose="${tenant[$1]}" -v host="$1" -v share="$SHARE" \
        '$1 > since && $2 == whose && !seen[$3]++ { n++ } $1 > since && $3 == host { has = 1 } END { exit !(has || n < share) }' "$PLACE/asked"
}

# leads_here HOST: whether this machine answers at it, asked as the authority will ask. On failure `reason` says what there is,
# and `is_sure` whether the authority would find the same (behind some routers nobody reaches himself by his own name).
probe='' reason='' is_sure=
leads_here() {
    local answer code=0
    if [[ -z $probe ]]; then
        probe=$WEBROOT/.well-known/acme-challenge/gatehouse-$(openssl rand -hex 16)
        mkdir -p -- "${probe%/*}"
        printf %s "${probe##*/}" >"$probe"
        trap 'rm -f -- "$probe"; rm -rf -- "$work"' EXIT
    fi
    answer=$(curl --silent --noproxy '*' --proto '=http' --max-time 5 --max-filesize 1000 \
        "http://$1/.well-known/acme-challenge/${probe##*/}" | tr -d '\0') || code=$?
    [[ $answer != "${probe##*/}" ]] || return 0
    is_sure=yes
    case $code in
        6) reason="DNS knows no address of it: let an A or AAAA record name this machine" ;;
        7 | 28)
            reason="nobody answers there on port 80: does DNS name this machine, and is the port open?"
            is_sure=
            ;;
        *) reason="something else answers there on port 80: let its A and AAAA records name this machine" ;;
    esac
    return 1
}

# get HOST: a certificate from the authority. On failure `reason` is what it said.
get() {
    local options=(--non-interactive --agree-tos --email "$acme_email" --webroot --webroot-path "$WEBROOT" --force-renewal)
    [[ -z $acme_directory ]] || options+=(--server "$acme_directory")
    printf '%s %s %s\n' "$EPOCHSECONDS" "${tenant[$1]}" "$1" >>"$PLACE/asked"
    rm -rf -- "$work/certbot"
    if in_certbot certonly "${options[@]}" --cert-name "$1" --domain "$1" >"$work/said" 2>&1; then
        is_settled "$1"
        say "$1 has a new certificate."
        return
    fi
    # What it answers to an order, such as "too many", certbot has in its log alone.
    reason=$({ sed -n 's/^ *Detail: //p' "$work/said" | grep . || grep -hoE 'urn:ietf:params:acme:error:.*' "$work/certbot/letsencrypt.log" ||
        grep -v '^Ask for help\|^$' "$work/said"; } | tail -n 1 | tr -cd '[:print:]' | cut -c -300)
    reason="the authority says: ${reason:-nothing}"
    return 1
}
in_certbot() { certbot "$@" --config-dir "$ACME" --work-dir "$work/certbot" --logs-dir "$work/certbot"; }

# from_authority HOST: sees to it that there is one, if it can be had.
started=0
declare -A vain=() # hosts of a tenant that were looked for in vain: each may take some seconds of the others' time
from_authority() {
    local live=$ACME/live/$1/fullchain.pem has='' whose=${tenant[$1]}
    [[ ! -s $live ]] || has=yes
    if [[ -n $has && -z $renew ]] && ! is_due "$live"; then
        is_settled "$1"
    elif [[ -n $dry_run ]]; then
        run "ask the authority for a certificate for $1"
    elif waits "$1"; then
        warn "$1 has no ${has:+new }certificate yet: $(tail -n +2 "$PLACE/waiting/$1")"
    elif ((${vain[$whose]:-0} >= SHARE)); then
        [[ ${kind[$1]} == app ]] || refuse "$1" "$SHARE other hosts of $whose do not lead here; remove those that are not used"
    elif ! leads_here "$1" && [[ -n $is_sure ]]; then
        vain[$whose]=$((${vain[$whose]:-0} + 1))
        [[ ${kind[$1]} == app ]] || refuse "$1" "$reason" # an app's name may well lead to a proxy elsewhere
    elif [[ -z $has ]] && ! has_share "$1"; then
        refuse "$1" "$whose has had certificates for $SHARE hosts in seven days; $OPT/current/deploy/$me --now $1 asks all the same"
    elif [[ -z $has ]] && ((started >= AT_ONCE)); then
        refuse "$1" "it has its turn within the hour, after $AT_ONCE others"
    else
        started=$((started + 1))
        get "$1" || refuse "$1" "$reason" later
    fi
}

# --- What nginx is to read --------------------------------------------------------------------------------------------
# server HOST CERTIFICATE KEY. The fingerprint lets nginx read the file again when it is another one.
server() {
    say "# ${kind[$1]} ${tenant[$1]}; $(openssl x509 -in "$2" -noout -fingerprint -sha256)"
    say "server {"
    say "    listen 443 ssl http2;"
    [[ ! -e /proc/self/net/if_inet6 ]] || say "    listen [::]:443 ssl http2;"
    say "    server_name $1;"
    say "    ssl_certificate $2;"
    say "    ssl_certificate_key $3;"
    say "    include snippets/gatehouse-server.conf;"
    say "}"
}

# look_at HOST: its certificate, and its lines for nginx.
look_at() {
    local host=$1 why=
    if is_served_elsewhere "$host"; then
        is_settled "$host"
        return
    fi
    [[ $host == *."$tenant_domain" || ${kind[$host]} == portal ]] || say "server_name $host;" >>"$work/names.conf"
    [[ -z $behind_proxy ]] || return 0
    if [[ -e $GIVEN/$host ]]; then
        why=$(wrong_with "$GIVEN/$host/fullchain.pem" "$GIVEN/$host/privkey.pem" "$host")
        if [[ -z $why ]]; then
            server "$host" "$GIVEN/$host/fullchain.pem" "$GIVEN/$host/privkey.pem" >>"$work/servers.conf"
            is_settled "$host"
            return
        fi
        [[ -z $acme_email ]] || warn "$host: your certificate for it is not used: $why."
    fi
    if [[ -n $tls_cert ]] && covers "$tls_cert" "$host"; then
        [[ -z $why || -n $acme_email ]] || warn "$host: your certificate for it is not used: $why."
        is_settled "$host"
        [[ $host == *."$tenant_domain" || ${kind[$host]} == portal ]] || server "$host" "$tls_cert" "$tls_key" >>"$work/servers.conf"
        return
    fi
    if [[ -z $acme_email ]]; then
        [[ ${kind[$host]} == app ]] || refuse "$host" "${why:-the given one does not cover it}; put a good one into $GIVEN/$host, or run install.sh with --acme-email"
        return
    fi
    if ((${#only[@]} == 0)) || [[ " ${only[*]} " == *" $host "* ]]; then from_authority "$host"; fi
    # One that has run out is still better than none: the browser says what is wrong.
    why=$(wrong_with "$ACME/live/$host/fullchain.pem" "$ACME/live/$host/privkey.pem" "$host")
    [[ -n $why && $why != *"has run out" ]] ||
        server "$host" "$ACME/live/$host/fullchain.pem" "$ACME/live/$host/privkey.pem" >>"$work/servers.conf"
}

# What a host left that is none any more. Its certificate stays until it has run out: the host may come back.
forget_gone() {
    local file host
    for file in "$PLACE"/waiting/*; do
        host=${file##*/}
        [[ ! -f $file || -n ${kind[$host]:-} ]] || rm -f -- "$file"
    done
    for file in "$ACME"/live/*/fullchain.pem; do
        host=${file%/*} host=${host##*/}
        if [[ -f $file && -z ${kind[$host]:-} ]] && ! openssl x509 -in "$file" -noout -checkend 0 >/dev/null; then
            run "forget the certificate of $host, which has run out" in_certbot delete --quiet --non-interactive --cert-name "$host" ||
                warn "certbot could not forget the certificate of $host."
        fi
    done
    awk -v since="$((EPOCHSECONDS - 7 * 86400))" '$1 > since' "$PLACE/asked" >"$PLACE/asked.new"
    mv -f -- "$PLACE/asked.new" "$PLACE/asked"
}

prepare() {
    local host
    read_hosts "$1"
    for host in "${only[@]}"; do
        [[ -n ${kind[$host]:-} ]] || die "Gatehouse has no host $host. Those it has: gatehouse hosts"
    done
    read_others
    touch "$work/names.conf" "$work/servers.conf"
    # Names are up to 253 letters long; nginx's own table is made for 46.
    if ! grep -rqsE '^\s*server_names_hash_bucket_size' /etc/nginx/nginx.conf /etc/nginx/conf.d; then
        say $'server_names_hash_bucket_size 512;\nserver_names_hash_max_size 8192;' >"$work/servers.conf"
    fi
    [[ -z $tls_cert ]] || say "# $(openssl x509 -in "$tls_cert" -noout -fingerprint -sha256)" >>"$work/servers.conf"
    for host in "${hosts[@]}"; do look_at "$host"; done
    for_this_nginx <"$work/servers.conf" >"$work/servers.new"
    mv -- "$work/servers.new" "$work/servers.conf"
    [[ -n $dry_run ]] || forget_gone
}

# take FOLDER: lets nginx read what is new there. If it does not, it gets back what it had.
take() {
    local name before=$changed
    for name in names servers; do
        [[ -f $1/$name.conf ]] || die "there is nothing to take: $1/$name.conf"
        [[ ! -f $NGINX/$name.conf ]] || cp -- "$NGINX/$name.conf" "$work/$name.before"
        put 0644 root:root "$NGINX/$name.conf" <"$1/$name.conf"
    done
    [[ $changed != "$before" && -z $dry_run ]] || return 0
    if ! nginx -q -t; then
        for name in names servers; do
            rm -f -- "$NGINX/$name.conf"
            [[ ! -f $work/$name.before ]] || cp -- "$work/$name.before" "$NGINX/$name.conf"
        done
        die "nginx does not take its configuration; what runs goes on as it was"
    fi
    ! systemctl --quiet is-active nginx || run "let nginx read it" systemctl reload nginx
}

need_root
if [[ -n $dry_run && ! -d $NGINX ]]; then
    say "would: get a certificate for each host that has none"
    exit 0
fi
read_answers
if [[ -z $step ]]; then
    folder 0755 root:root "$PLACE"
    folder 0755 root:root "$PLACE/waiting"
    folder 0700 root:root "$ACME"
    folder 0755 root:root "$NGINX"
fi
if [[ -z $dry_run ]]; then
    exec 7>"$PLACE/lock"
    flock --timeout 1200 7 || die "another certificates.sh is at work"
    touch "$PLACE/asked"
fi
# What is prepared is kept in one place, so that the unit's last step never takes what another run has made out of date.
made=$PLACE
case $step in
    prepare)
        prepare "$list"
        cp -- "$work/names.conf" "$work/servers.conf" "$PLACE"
        exit 0
        ;;
    take) ;;
    *)
        /usr/local/sbin/gatehouse hosts --skip-checks --to - </dev/null >"$work/hosts" || die "Gatehouse does not say which hosts there are"
        prepare "$work/hosts"
        if [[ -n $dry_run ]]; then made=$work; else cp -- "$work/names.conf" "$work/servers.conf" "$PLACE"; fi
        ;;
esac
take "$made"
host=${portal_url#https://}
if [[ -z $behind_proxy$dry_run ]] && ! is_served_elsewhere "$host" && ! grep -qF "server_name $host;" "$made/servers.conf"; then
    [[ -n $tls_cert ]] || die "the portal has no certificate: $(tail -n +2 "$PLACE/waiting/$host" 2>/dev/null)"
fi
