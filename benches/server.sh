# The server that load.sh and idle.sh measure: built, started, loaded and stopped. They source this file, and
# set `data`, a directory for the segments that is removed at the end, and `port`; the one after it is the
# admin listener's.
# shellcheck shell=bash disable=SC2154  # `data` and `port`

scratch=$(mktemp -d)
server= # the process that is measured
clients= # the process that holds idle connections

# Programs that have to be there.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 1; }
    done
}

build() {
    cargo build --release --quiet --bin netwatch-server --example floor --example parts
    built=$PWD/target/release
}

# Ends both processes. Whether the server ended well shows in nothing that is measured.
stop() {
    local process
    for process in $clients $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    server='' clients=''
}
trap 'stop; rm -rf "$scratch" "$data"' EXIT

# Starts KIND, `floor` or an ack level, with so many WORKERS on CPUS. Further settings are VARIABLE=VALUE….
start() {
    local kind=$1 workers=$2 cpus=$3 tries=0
    shift 3
    rm -rf "$data"
    if [[ $kind == floor ]]; then
        "$built/examples/floor" --cpu "$cpus" --port "$port" &
    else
        env ACK="$kind" WORKERS="$workers" HOST=127.0.0.1 PORT="$port" ADMIN_ADDR="127.0.0.1:$((port + 1))" \
            DATA_DIR="$data" LOG_FORMAT=text "$@" \
            taskset -c "$cpus" "$built/netwatch-server" --config /dev/null >"$scratch/log" 2>&1 &
    fi
    server=$!
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ((++tries > 200)) || ! kill -0 "$server" 2>/dev/null; then
            echo "$kind does not listen on port $port" >&2
            cat "$scratch/log" >&2 || true
            exit 1
        fi
        sleep 0.05
    done
}

# Writes reports of each SIZE to files of that name.
bodies() {
    local size
    local -A samples=([2KB]=1 [13KB]=20 [62KB]=100)
    for size in "$@"; do
        "$built/examples/parts" bodies "${samples[$size]?$size: expected 2KB, 13KB or 62KB}" >"$scratch/$size"
    done
}

# Loads the server for SECONDS, from CPUS, with CONNECTIONS that post reports of SIZE, with further OPTION… of oha,
# whose summary goes to the file `summary`.
load() {
    local duration=$1 cpus=$2 count=$3 size=$4
    shift 4
    taskset -c "$cpus" oha --no-tui --output-format json --worker-threads 1 -w -z "${duration}s" -c "$count" "$@" \
        -m POST -T text/plain -Z "$scratch/$size" "http://127.0.0.1:$port/api/v1/reports" >"$scratch/summary"
    if ! jq -e '.statusCodeDistribution | keys == ["200"]' "$scratch/summary" >/dev/null; then
        echo "$size, $count connections: not every answer was a 200:" >&2
        jq -c '.statusCodeDistribution, .errorDistribution' "$scratch/summary" >&2
        exit 1
    fi
}

# Resident memory of the server.
rss_kib() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$server/status"
}

# One line for each of its threads: ID NAME ns-on-a-CPU times-it-waited.
threads() {
    local task
    for task in "/proc/$server/task"/*; do
        printf '%s %s %s %s\n' "${task##*/}" "$(<"$task/comm")" "$(cut -d' ' -f1 "$task/schedstat")" \
            "$(awk '$1 == "voluntary_ctxt_switches:" { print $2 }' "$task/status")"
    done
}
