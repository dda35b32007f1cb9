# What the scripts share. Source it: . "$(dirname "$0")/lib.sh"

# Some users' PATH leaves out the administrator's programs.
PATH=$PATH:/usr/sbin:/sbin

# Exists if systemd is the running service manager. Tests set another directory.
SYSTEMD_DIRECTORY=${SYSTEMD_DIRECTORY:-/run/systemd/system}

say() { printf '   %s\n' "$*"; }

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

# inventory_of ENV: prints the path of an inventory: a directory of inventories/, or another path.
inventory_of() {
    local all path real
    all=$(realpath inventories)
    for path in "inventories/$1" "$1"; do
        # The directory of all inventories, or one above it, is none: all of them would be one cluster.
        if [ -n "$1" ] && real=$(realpath -e "$path" 2>/dev/null) && [[ $all/ != "${real%/}"/* ]]; then
            # make up writes the addresses of its hosts there.
            if [ "$real" = "$all/staging" ] && ! [ -e "$path/generated.yml" ]; then
                stop "There is no staging cluster. Start one: make up"
            fi
            printf '%s\n' "$path"
            return
        fi
    done
    stop "There is no inventory '$1'. ENV= takes one of: $(ls inventories | xargs)"
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
            "Install these Debian packages, or their equivalents: $*"
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        stop "$what is missing, and only root can install it. As root: apt-get install $*"
    fi
    say "installing $what: $*"
    local log
    log=$(mktemp)
    # The package lists of the machine may be outdated. One at a time: apt-get does not wait for another one.
    if ! as_root flock /var/lib/apt sh -c "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $*" \
        >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        stop "Installing $what failed. See the end of apt-get's output above."
    fi
    rm -f "$log"
}

# built_of FOLDER: prints the directory of what is built of a folder with a Go module. It is kept for all
# checkouts, by a hash of what it is built of.
built_of() {
    local hash
    hash=$(cat "$1/go.mod" "$1/go.sum" | sha256sum | cut -c1-12)
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/channels-kit/$(basename "$1")-$hash"
}

opentofu_module=scripts/modules/opentofu
terraform_needed=1.7.0

# terraform_program: prints the path of a Terraform or OpenTofu that is new enough, the machine's first.
terraform_program() {
    local program version
    for program in terraform tofu "$(built_of "$opentofu_module")/tofu"; do
        program=$(command -v "$program") || continue
        version=$("$program" version -json 2>/dev/null | awk -F '"' '$2 == "terraform_version" { print $4 }')
        if [ -n "$version" ] && printf '%s\n' "$terraform_needed" "$version" | sort --version-sort --check 2>/dev/null; then
            printf '%s\n' "$program"
            return
        fi
    done
    return 1
}

# service_manager_runs: whether systemctl can start something here.
service_manager_runs() { [ -d "$SYSTEMD_DIRECTORY" ]; }

# Environment variables that a daemon keeps: proxies and trusted certificates.
DAEMON_VARIABLES=(
    http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY
    SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS
)

# start_daemon LOG PROGRAM [ARGUMENT ...]: starts a program as root that outlives this script. It keeps
# only standard input, output and error (any other descriptor would hold a lock or a pipe while the daemon
# runs). Its directory is /, it has its own session, and its niceness, umask, signals and environment are
# those that a service manager sets.
start_daemon() {
    local log=$1 program
    shift
    program=$(command -v "$1") || stop "$1 is missing."
    shift
    (
        cd /
        umask 022
        # By name and not by env NAME=VALUE: a proxy's password belongs on no command line.
        for name in $(compgen -e); do
            case " ${DAEMON_VARIABLES[*]} " in
            *" $name "*) ;;
            *) unset "$name" ;;
            esac
        done
        mapfile -t functions < <(compgen -A function)
        unset -f "${functions[@]}"
        export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        export HOME=/root LANG=C.UTF-8
        start=(sh -c 'log=$0; exec "$@" </dev/null >"$log" 2>&1' "$log")
        start+=(env --default-signal nice -n "$((-$(nice)))" setsid --fork "$program" "$@")
        if [ "$(id -u)" != 0 ]; then
            start=(sudo "--preserve-env=$(IFS=,; printf '%s' "${DAEMON_VARIABLES[*]}")" "${start[@]}")
        fi
        for descriptor in /proc/self/fd/*; do
            descriptor=${descriptor##*/}
            [ "$descriptor" -le 2 ] || eval "exec $descriptor>&-"
        done
        exec "${start[@]}"
    )
}

# lock_cluster NAME COMMANDS: lets one command at a time change a cluster of this checkout. The lock lasts
# until this script and all commands that it started have ended. The lock file stays: if it were removed,
# two commands could hold a lock on different files.
lock_cluster() {
    local file=.staging/$1.lock
    mkdir -p .staging
    exec 9>>"$file"
    if ! flock --nonblock 9; then
        stop "Another $2 is running in this checkout (process $(cat "$file")). Nothing changed." \
            "Wait until it ends, then retry."
    fi
    printf '%s\n' "$$" >"$file"
}

# say_when_interrupted LINE ...: the lines to print after Ctrl-C, when the running commands have ended.
say_when_interrupted() {
    interrupted=("$@")
    trap 'printf "\n"; end_beside; stop_with 130 "${interrupted[@]}"' INT
}

stop_with() {
    local status=$1
    shift
    printf '%s\n' "$@" >&2
    exit "$status"
}

# phase NAME COMMAND ...: runs a phase, and says how long it took.
phase() {
    local name=$1 start=$EPOCHREALTIME status=0
    shift
    printf '== %s\n' "$name"
    # Runs in a subshell: with || or if, bash would ignore set -e within the command.
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

# beside NAME COMMAND ...: starts a phase that runs beside the next ones. Prints its result when it ends;
# join_beside prints its output. It ends with the script.
beside_processes=() beside_logs=()
beside() {
    local log
    log=$(mktemp)
    beside_logs+=("$log")
    trap end_beside EXIT
    printf '== %s: runs beside the next phase\n' "$1"
    # A process group of its own: it is ended with all that it has started.
    set -m
    (
        # Not where this shell reports the end of its jobs.
        set +m
        trap 'tail -n 1 "$log"' EXIT
        # The last line of an interrupted phase is no result.
        trap 'trap - EXIT; exit 130' INT
        phase "$@" >"$log" 2>&1
    ) </dev/null &
    set +m
    beside_processes+=("$!")
}

# join_beside: waits for the phases that run beside, prints their outputs, and returns the last status
# that is not 0.
join_beside() {
    local process status=0
    for process in "${beside_processes[@]}"; do
        wait "$process" || status=$?
    done
    beside_processes=()
    print_beside
    return "$status"
}

print_beside() {
    local log
    for log in "${beside_logs[@]}"; do
        cat "$log"
        rm -f "$log"
    done
    beside_logs=()
}

# end_beside: interrupts the phases that run beside, if any, and prints their outputs.
end_beside() {
    local process
    for process in "${beside_processes[@]}"; do
        kill -INT -- "-$process" 2>/dev/null || true
    done
    for process in "${beside_processes[@]}"; do
        wait "$process" || true
    done
    beside_processes=()
    print_beside
}
