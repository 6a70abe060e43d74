#!/usr/bin/env bash
# Measures reading back, and what it costs those who write.
#
#   bash benches/query.sh [OPTION]…
#
#   --mib N       MiB of lines to ask                      (1024)
#   --rounds N    measurements of each kind, by turns      (3; the tables have medians)
#   --seconds N   seconds of load per measurement          (10)
#   --data DIR    where segments go                        (target/bench-query; removed at the end)
#   --port N      a free port, and the one after it        (18090)
#
# First: the latencies by host of all reports, by DuckDB, by the command line that decodes every segment, and by the one
# that has sidecars; on the same files and CPUs. The three answers are compared. Memory is the most that was resident.
#
# Second: posts with `durable` and 256 connections, alone and while one full scan follows the other on the admin
# listener. Server, scan and load share the machine's CPUs.
#
# Everything that reads is idle (SCHED_IDLE) and waits for whatever else runs: the machine has to be quiet.
#
# Needs python3 with venv, from which DuckDB comes, and curl.
set -euo pipefail
cd "$(dirname "$0")/.."

mib=1024 rounds=3 seconds=10 data=target/bench-query port=18090
while (($#)); do
    case $1 in
        --mib | --rounds | --seconds | --data | --port)
            declare "${1#--}=${2?$1: expected a value}"
            shift 2
            ;;
        *)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
done

cargo build --release --quiet --bin netwatch-server --example load
built=$PWD/target/release
python3 -m venv target/bench-venv
target/bench-venv/bin/pip install --quiet duckdb==1.5.5
scratch=$(mktemp -d)
server=
scan=

stop() {
    local process
    for process in $scan $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    scan='' server=''
}
trap 'stop; rm -rf "$scratch" "$data"' EXIT

start() {
    local tries=0
    HOST=127.0.0.1 PORT=$port ADMIN_ADDR=127.0.0.1:$((port + 1)) DATA_DIR=$1 MIN_FREE_BYTES=0 LOG_FORMAT=text \
        "$built/netwatch-server" --config /dev/null >"$scratch/log" 2>&1 &
    server=$!
    until curl -sf -o "$scratch/health" "http://127.0.0.1:$port/.well-known/healthcheck"; do
        if ((++tries > 200)) || ! kill -0 "$server" 2>/dev/null; then
            cat "$scratch/log" >&2
            exit 1
        fi
        sleep 0.05
    done
}

# Posts OPTION…; the summary goes to stdout.
load() {
    rm -f "$scratch/journal"
    "$built/examples/load" run --addr "127.0.0.1:$port" --samples 20 --journal "$scratch/journal" "$@"
}

rm -rf "$data"
start "$data/all"
# A line of 20 samples a host has some 13 KB.
load --connections 64 --count $((mib * 1048576 / 13400)) >"$scratch/stored"
echo 'waiting for sidecars' >&2
stop
start "$data/all"
indexed() { find "$data/all/.index" -name '*.json' | wc -l; }
sealed() { find "$data/all" -maxdepth 1 -name '*.jsonl.zst' | wc -l; }
until (($(indexed) == $(sealed))); do sleep 1; done
stop
mkdir "$data/bare"
ln "$data"/all/*.jsonl.zst "$data/bare/"
segments=("$data"/bare/*.jsonl.zst)
echo "${#segments[@]} segments, $(du -sm "$data/bare" | cut -f1) MiB compressed" >&2

target/bench-venv/bin/python - "$built/netwatch-server" "$data" "$rounds" <<'PYTHON'
import json, statistics, subprocess, sys, time
import duckdb

server, data, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
VIEW = f"""CREATE VIEW samples AS
WITH h AS (SELECT unnest(hosts) AS h FROM read_ndjson('{data}/bare/*.jsonl.zst', columns = {{hosts:
    'STRUCT("name" VARCHAR, history STRUCT(t DOUBLE, latency DOUBLE, error VARCHAR)[])[]'}})),
s AS (SELECT h.name AS host, unnest(h.history) AS s FROM h)
SELECT host, s.latency AS latency, s.error AS error FROM s"""
EXACT = """SELECT host, count(*), count(error), min(latency), avg(latency), max(latency),
    quantile_disc(latency, [0.5, 0.9, 0.95, 0.99]) FROM samples GROUP BY host ORDER BY host"""
PLAIN = "SELECT host, count(*), count(error), min(latency), avg(latency), max(latency) FROM samples GROUP BY host"
connection = duckdb.connect()
connection.execute(VIEW)


def timed(run):
    began = time.monotonic()
    return run(), time.monotonic() - began


# A process begins with the peak of the one that makes it, and this one has DuckDB in it.
SMALL = """import os, sys
pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
sys.stderr.write(str(usage.ru_maxrss))
sys.exit(status != 0)"""


def cli(*arguments):
    command = [sys.executable, "-S", "-c", SMALL, server, "summary", "--json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"summary: {ended.stderr}")
    return json.loads(ended.stdout), int(ended.stderr) / 1024


kinds = {
    "DuckDB, without quantiles": lambda: (connection.execute(PLAIN).fetchall(), 0),
    "DuckDB": lambda: (connection.execute(EXACT).fetchall(), 0),
    "full scan": lambda: cli(f"{data}/bare"),
    "sidecars": lambda: cli(f"{data}/all"),
    "full scan, by country": lambda: cli(f"{data}/bare", "--group", "/geo/country"),
    "distinct samples": lambda: cli(f"{data}/all", "--dedupe"),
}
seen = {kind: [] for kind in kinds}
answers = {}
for _ in range(rounds):
    for kind, run in kinds.items():
        (answers[kind], memory), seconds = timed(run)
        seen[kind].append((seconds, memory))
for exact, row, indexed in zip(answers["DuckDB"], answers["full scan"]["rows"], answers["sidecars"]["rows"], strict=True):
    names = ["host", "samples", "errors", "min", "mean", "max"]
    found = [row[name] for name in names]
    wanted = list(exact[:6])
    if found[:4] + found[5:] != wanted[:4] + wanted[5:] or abs(found[4] - wanted[4]) > 1e-9 * wanted[4]:
        sys.exit(f"expected {wanted}, found {found}")
    if {**row, "start": 0} != {**indexed, "start": 0}:
        sys.exit(f"expected {row}, found {indexed}")
    for name, wanted in zip(["p50", "p90", "p95", "p99"], exact[6], strict=True):
        if abs(row[name] - wanted) > 0.01 * wanted:
            sys.exit(f"{name}: expected {wanted}, found {row[name]}")
print(f"{sum(row['samples'] for row in answers['sidecars']['rows'])} samples, the answers are the same\n")
base = statistics.median(seconds for seconds, _ in seen["DuckDB"])
print(f"{'':26} {'s':>7} {'/DuckDB':>9} {'RSS MiB':>8}")
for kind, measured in seen.items():
    seconds = statistics.median(seconds for seconds, _ in measured)
    memory = max(memory for _, memory in measured)
    print(f"{kind:26} {seconds:7.2f} {seconds / base:9.4f} {memory:8.0f}" if memory else f"{kind:26} {seconds:7.2f} {seconds / base:9.4f}")
PYTHON

# What the server holds while it is asked as well: the second half has its own directory to write to, and the first
# half's segments to read.
scan_all() {
    while :; do
        curl -sf -o "$scratch/scan" "http://127.0.0.1:$((port + 1))/api/v1/summary?group=/geo/country" || return
    done
}

: >"$scratch/loads"
for ((round = 1; round <= rounds; round++)); do
    for kind in alone beside; do
        rm -rf "$data/written"
        mkdir "$data/written"
        ln "$data"/bare/*.jsonl.zst "$data/written/"
        mkdir "$data/written/.index"
        cp "$data"/all/.index/*.json "$data/written/.index/"
        start "$data/written"
        if [[ $kind == beside ]]; then
            scan_all &
            scan=$!
        fi
        load --connections 256 --seconds "$seconds" --seed "$round" >"$scratch/summary"
        [[ $kind == alone ]] || kill -0 "$scan" # it has gone on to the end
        echo "$kind $(sed -E 's/.*"acknowledged":([0-9]+).*"p99_ms":([0-9.]+).*"seconds":([0-9.]+).*/\1 \2 \3/' \
            "$scratch/summary")" >>"$scratch/loads"
        stop
    done
done
awk '
    function median(list,    n, i, j, v, all) {
        n = split(list, all, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && all[j - 1] + 0 > all[j] + 0; j--) { v = all[j]; all[j] = all[j - 1]; all[j - 1] = v }
        return n % 2 ? all[(n + 1) / 2] + 0 : (all[n / 2] + all[n / 2 + 1]) / 2
    }
    { rate[$1] = rate[$1] " " $2 / $4; late[$1] = late[$1] " " $3 }
    END {
        print "\nposts        reports/s   p99 ms"
        for (k = 1; k <= split("alone beside", kinds, " "); k++)
            printf "%-12s %9.0f %8.2f\n", kinds[k], median(rate[kinds[k]]), median(late[kinds[k]])
        printf "beside/alone %9.2f %8.2f\n", median(rate["beside"]) / median(rate["alone"]),
            median(late["beside"]) / median(late["alone"])
    }' "$scratch/loads"
