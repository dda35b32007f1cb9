# What the scripts share. Source it: . "$(dirname "$0")/lib.sh"

# Whose shell leaves out the administrator's programs looks for them all the same.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '   %s\n' "$*"; }

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages WHAT-FOR PACKAGE ...: installs Debian packages, and says so.
install_packages() {
    local what=$1
    shift
    if ! command -v apt-get >/dev/null; then
        stop "$what is missing, and this is not a Debian or Ubuntu machine." \
            "Install by hand what Debian calls: $*"
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        stop "$what is missing, and only root may install it. As root: apt-get install $*"
    fi
    say "installing $what: $*"
    local log
    log=$(mktemp)
    # The machine's lists may be too old to fetch what they name.
    if ! as_root sh -c "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $*" \
        >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        stop "$what could not be installed; apt-get's last words stand above."
    fi
    rm -f "$log"
}

# phase NAME COMMAND ...: runs a phase, and says how long it took.
phase() {
    local name=$1 start=$EPOCHREALTIME status=0
    shift
    printf '== %s\n' "$name"
    # In a shell of its own: behind || or if, bash would go on after a command that failed.
    set +e
    (
        set -e
        "$@"
    )
    status=$?
    set -e
    local seconds
    seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    if [ "$status" = 0 ]; then
        printf '== %s: done in %s s\n' "$name" "$seconds"
    else
        printf '== %s: FAILED after %s s\n' "$name" "$seconds" >&2
    fi
    return "$status"
}
