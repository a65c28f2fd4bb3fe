#!/usr/bin/env bash
# Back to the release before, within seconds: see --help.
# shellcheck source=deploy/releases.sh
source "$(dirname "${BASH_SOURCE[0]}")/releases.sh"

help() {
    cat <<'TEXT'
Usage: rollback.sh [--dry-run]

Changes back to the release that served before the last upgrade, without a failed request: it is still there, is started in
the idle slot, and nginx changes over. The database keeps its schema and everything that was written since. People stay
signed in. A second rollback.sh goes forward again.

Exit status: 0 done; 1 failed, and the release that served goes on; 2 wrong usage.
TEXT
}

reason=
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit 0
            ;;
        --dry-run) dry_run=yes ;;
        *) wrong_usage "unknown argument $1" ;;
    esac
    shift
done

begin_change
[[ -L $OPT/previous ]] || die "there is no release to go back to: nothing was upgraded yet"
release=$(readlink -f "$OPT/previous")
[[ -f $release/release ]] || die "the release before is not there any more: upgrade.sh with its source brings it back"
if [[ -n $dry_run ]]; then
    say "would: start $(id_of "$release") in the slot $(other_slot "$slot"), let nginx change over"
    exit 0
fi
switch_to "$release" || die "$reason. $(id_of "$old") goes on serving."
say "$(id_of "$release") serves again, after $SECONDS s. Forward again: rollback.sh"
