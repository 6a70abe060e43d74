#!/usr/bin/env bash
# Measures the server under load, beside the floor: a bare server on the same runtime that reads the body
# and answers 200 (benches/floor.rs).
#
#   bash benches/load.sh [OPTION]…
#
#   --seconds N       seconds of load per measurement      (3)
#   --rounds N        measurements per line of the table   (3; the table has the medians)
#   --sizes LIST      report sizes, of 2KB,13KB,62KB       (all)
#   --connections LIST                                     (64,256)
#   --acks LIST       of buffered,written,durable          (all)
#   --data DIR        where segments go                    (target/bench-data; removed at the end)
#   --port N          a free port                          (18080)
#   --no-memory       leave out the memory measurements
#
# The server has one worker on CPU 0 and the load generator CPU 1, so two CPUs must be free; whatever else
# runs on them shows in requests/s and latency. The lines of the table take turns, so that what changes over
# time changes all of them: trust ratios, not figures. CPU is user and system time of the whole process,
# kernel workers included, per report. `limit` is floor + simd-json + zstd level 1 for the same bytes, and
# `cpu/limit` what the server spends per report as a multiple of it.
#
# Needs oha, jq and taskset.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=3 rounds=3 sizes=2KB,13KB,62KB connections=64,256 acks=buffered,written,durable
data=target/bench-data port=18080 memory=yes

while (($#)); do
    case $1 in
        --seconds | --rounds | --sizes | --connections | --acks | --data | --port)
            declare "${1#--}=${2?$1: expected a value}"
            shift 2
            ;;
        --no-memory)
            memory=no
            shift
            ;;
        *)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
done
IFS=, read -ra sizes <<<"$sizes"
IFS=, read -ra connections <<<"$connections"
IFS=, read -ra acks <<<"$acks"
declare -A samples=([2KB]=1 [13KB]=20 [62KB]=100)

for tool in oha jq taskset; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 1; }
done

cargo build --release --quiet --bin netwatch-server --example floor --example parts
built=$PWD/target/release
scratch=$(mktemp -d)
server= # the process that is measured
clients= # the process that holds idle connections

stop() {
    local process
    for process in $clients $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    server='' clients=''
    rm -rf "$data"
}
trap 'stop; rm -rf "$scratch"' EXIT

# Starts KIND, `floor` or an ack level, with so many WORKERS on CPUS.
start() {
    local kind=$1 workers=$2 cpus=$3 tries=0
    if [[ $kind == floor ]]; then
        "$built/examples/floor" --cpu "$cpus" --port "$port" &
    else
        ACK=$kind WORKERS=$workers HOST=127.0.0.1 PORT=$port ADMIN_ADDR=off DATA_DIR=$data LOG_FORMAT=text \
            taskset -c "$cpus" "$built/netwatch-server" >"$scratch/log" 2>&1 &
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

# Loads the server for SECONDS with CONNECTIONS that post reports of SIZE; oha's summary goes to stdout.
load() {
    taskset -c 1 oha --no-tui --output-format json --worker-threads 1 -w -z "$1s" -c "$2" \
        -m POST -T text/plain -Z "$scratch/$3" "http://127.0.0.1:$port/api/v1/reports"
}

# User and system time of the server's threads, in clock ticks.
cpu_ticks() {
    local fields
    # The name in parentheses may have blanks in it.
    fields=$(sed 's/.*) //' "/proc/$server/stat")
    awk '{ print $12 + $13 }' <<<"$fields"
}

rss_kib() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$server/status"
}

# One measurement: a line `SIZE CONNECTIONS KIND requests/s p50 p99 p99.9 CPU-µs RSS-MiB` to the results.
measure() {
    local size=$1 count=$2 kind=$3 before after
    start "$kind" 1 0
    load 0.5 "$count" "$size" >/dev/null
    before=$(cpu_ticks)
    load "$seconds" "$count" "$size" >"$scratch/summary"
    after=$(cpu_ticks)
    if ! jq -e '.statusCodeDistribution | keys == ["200"]' "$scratch/summary" >/dev/null; then
        echo "$kind, $size, $count connections: not every answer was a 200:" >&2
        jq -c '.statusCodeDistribution, .errorDistribution' "$scratch/summary" >&2
        exit 1
    fi
    jq -r --arg line "$size $count $kind" --argjson rss "$(rss_kib)" \
        --argjson cpu_us "$(((after - before) * 1000000 / $(getconf CLK_TCK)))" '
        .statusCodeDistribution["200"] as $reports | .latencyPercentiles as $late |
        [$line, $reports / .summary.total, $late.p50 * 1000, $late.p99 * 1000, $late["p99.9"] * 1000,
            $cpu_us / $reports, $rss / 1024] | map(tostring) | join(" ")' \
        "$scratch/summary" >>"$scratch/results"
    stop
}

for size in "${sizes[@]}"; do
    "$built/examples/parts" bodies "${samples[$size]?$size: expected 2KB, 13KB or 62KB}" >"$scratch/$size"
done
: >"$scratch/results"
: >"$scratch/limits"
for ((round = 1; round <= rounds; round++)); do
    for size in "${sizes[@]}"; do
        echo "$size $(taskset -c 0 "$built/examples/parts" limits "$scratch/$size")" >>"$scratch/limits"
        for count in "${connections[@]}"; do
            for kind in floor "${acks[@]}"; do
                echo "round $round of $rounds: $size, $count connections, $kind" >&2
                measure "$size" "$count" "$kind"
            done
        done
    done
done

awk -v rounds="$rounds" -v sizes="${sizes[*]}" -v counts="${connections[*]}" -v kinds="floor ${acks[*]}" '
    function median(key,    n, i, j, v, list) {
        n = split(seen[key], list, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && list[j - 1] + 0 > list[j] + 0; j--) {
                v = list[j]; list[j] = list[j - 1]; list[j - 1] = v
            }
        return n % 2 ? list[(n + 1) / 2] + 0 : (list[n / 2] + list[n / 2 + 1]) / 2
    }
    FILENAME ~ /limits$/ {
        seen[$1 " json"] = seen[$1 " json"] " " $2
        seen[$1 " zstd"] = seen[$1 " zstd"] " " $3
        next
    }
    { for (i = 4; i <= 9; i++) seen[$1 " " $2 " " $3 " " i] = seen[$1 " " $2 " " $3 " " i] " " $i }
    END {
        split(sizes, size, " "); split(counts, count, " "); kinds_count = split(kinds, kind, " ")
        print "size  conns  server     requests/s   p50 ms   p99 ms p99.9 ms  CPU us/report  RSS MiB  cpu/limit  /buffered"
        for (s = 1; s in size; s++) {
            json = median(size[s] " json"); zstd = median(size[s] " zstd")
            for (c = 1; c in count; c++) {
                cell = size[s] " " count[c] " "
                limit = median(cell "floor 8") + json + zstd
                buffered = median(cell "buffered 4")
                for (k = 1; k <= kinds_count; k++) {
                    key = cell kind[k] " "
                    printf "%-5s %5s  %-9s %11.0f %8.2f %8.2f %8.2f %14.1f %8.1f", size[s], count[c], kind[k],
                        median(key 4), median(key 5), median(key 6), median(key 7), median(key 8), median(key 9)
                    if (kind[k] == "floor") printf "\n"
                    else printf " %10.2f %10s\n", median(key 8) / limit,
                        buffered ? sprintf("%.2f", median(key 4) / buffered) : "-"
                }
                printf "%-5s %5s  limit %55.1f   (simd-json %.1f, zstd %.1f)\n", size[s], count[c], limit, json, zstd
            }
        }
    }' "$scratch/limits" "$scratch/results"

[[ $memory == yes ]] || exit 0
size=${sizes[-1]}
start durable 2 0,1
load "$seconds" 256 "$size" >/dev/null
printf '\n2 workers, 256 busy connections, %s: RSS %s KiB\n' "$size" "$(rss_kib)"
stop
# Half of what this shell may open, 10,000 at most: the server needs as many.
count=$(ulimit -n)
[[ $count == unlimited ]] || ((count > 20000)) && count=20000
count=$((count / 2))
size=${sizes[0]}
start written 2 0,1
load 0.5 64 "$size" >/dev/null
busy=$(rss_kib)
mkfifo "$scratch/hold"
"$built/examples/parts" idle "127.0.0.1:$port" "$count" "$scratch/$size" <"$scratch/hold" >"$scratch/idle" &
clients=$!
exec 3>"$scratch/hold"
until grep -q idle "$scratch/idle"; do
    kill -0 "$clients"
    sleep 0.1
done
awk -v count="$count" -v before="$busy" -v after="$(rss_kib)" 'BEGIN {
    printf "%d idle keep-alive connections: %.2f KiB each (RSS %d KiB before, %d KiB with them)\n",
        count, (after - before) / count, before, after
}'
exec 3>&-
