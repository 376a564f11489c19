# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Helpers shared by the scripts of this folder; sourced, not run.
#
# Everything comes from the Debian archive that the machine's apt already uses;
# DEBIAN_MIRROR=URI names another one.
#
#   KYB_CACHE  where built roots, VMs and fetched packages are kept
#              (/var/cache/kybernate-test)

# shellcheck disable=SC2034 # the scripts use it
cache=${KYB_CACHE:-/var/cache/kybernate-test}

die() { echo "${0##*/}: $*" >&2; exit "${die_status:-1}"; }

need_root() { [ "$(id -u)" = 0 ] || die "must run as root"; }

# apt_install PACKAGE...: waits for another apt-get instead of failing, and
# refreshes stale lists once. Says nothing unless it fails.
apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    set -- -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
    log=$(mktemp)
    apt-get "$@" >"$log" 2>&1 </dev/null ||
        { apt-get -qq update && apt-get "$@"; } >>"$log" 2>&1 </dev/null ||
        { cat "$log" >&2; rm -f "$log"; return 1; }
    rm -f "$log"
}

# need COMMAND PACKAGE...: installs PACKAGEs when COMMAND is missing.
need() {
    cmd=$1
    shift
    command -v "$cmd" >/dev/null 2>&1 && return
    apt_install "$@" || die "cannot install the package for '$cmd'"
    command -v "$cmd" >/dev/null 2>&1 || die "'$cmd' is still missing after its install"
}

# Prints the URI of the main Debian archive in apt's own sources.
mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then echo "$DEBIAN_MIRROR"; return; fi
    for try in 1 2; do
        # shellcheck disable=SC2016 # apt-get expands this
        uri=$(apt-get indextargets --format '$(REPO_URI)' \
            'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)
        if [ -n "$uri" ]; then echo "$uri"; return; fi
        # The Label is known only once the lists were fetched.
        [ "$try" = 2 ] || apt-get -qq update >&2 || true
    done
    die "apt has no Debian source here: set DEBIAN_MIRROR to a mirror's URI"
}

# private_apt DIR SUITE ARG...: apt-get with its own lists, cache and (empty)
# package database below DIR, reading SUITE only; the machine's apt is not used.
private_apt() {
    dir=$1 suite=$2
    shift 2
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    [ -e "$dir/status" ] || : >"$dir/status"
    [ -e "$dir/sources.list" ] || echo "deb $(mirror) $suite main" >"$dir/sources.list"
    apt-get -qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$dir" -o Dir::State::Lists="$dir/lists" -o Dir::State::status="$dir/status" \
        -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Acquire::Retries=3 "$@" >&2 </dev/null
}
