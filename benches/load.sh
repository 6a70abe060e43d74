#!/usr/bin/env bash
# Measures the server under load, beside what no server can do without. README quotes its ratios.
#
#   bash benches/load.sh [OPTION]…
#
#   --sections LIST   of load,workers                      (all)
#   --seconds N       seconds of load per measurement      (3)
#   --rounds N        measurements per line of a table     (5; the tables have the medians)
#   --sizes LIST      report sizes, of 2KB,13KB,62KB       (all)
#   --connections LIST                                     (64,256)
#   --acks LIST       of buffered,written,durable          (all)
#   --stolen PERCENT  whole, of the time of CPUs 0 and 1   (1)
#   --tries N                                              (5)
#   --data DIR        where segments go                    (target/bench-data; removed at the end)
#   --port N          a free port, and the one after it    (18080)
#
# What is compared takes turns in every round, so that what changes over time changes all of it: trust ratios,
# not figures. Two CPUs must be free; whatever else runs on them shows in reports/s and latency. So does the host of
# a virtual machine, above all in the tail: what is measured while it has more of the CPUs than --stolen is measured
# again, and the best of --tries is kept.
#
# load: one worker on CPU 0, the load generator on CPU 1, as fast as they go.
#
#   server      the floor, a bare server on the same runtime that reads the body and answers 200
#               (benches/floor.rs), or this server with an ack level
#   CPU us      per report: user and system time of the whole process, kernel workers included, but for the
#               thread that makes sidecars, in time that nobody else wants (SCHED_IDLE),
#   sidecars    which has this column
#   limit       the floor's CPU, the one-pass check as the server has it, and zstd level 1 for the same bytes;
#               simd-json is what any other parser would be up against. Compressing is tuned to reports, and in
#               batches: the server may be below its limit.
#   /limit      CPU us, by that
#   /buffered   reports/s, by those of `buffered`
#
# A second table compares the wait for `durable` with the disk, for these measurements and for another of each at
# half of the rate that it came to: who posts as fast as they are answered waits for the core most of all, behind
# the other connections. Then, in the same directory, as many bytes as a commit had on average are appended to a file
# and synced, 1000 times, with nothing else running.
#
#   load            all that is taken, or half of it
#   reports, KB     in a commit, as compressed
#   bare ms         write and fdatasync together, median and 99th percentile
#   CPU ms          of a commit's reports: CPU us by their number
#   ack ms          from a report's last byte until its answer is ready to be sent, by the server: mean, and 99th
#                   percentile, which is interpolated between the bounds of its histogram, 2 to 2.5 apart
#   allowed         three times the bare 99th percentile, and the CPU of a commit
#   /allowed        the 99th percentile of ack, by that
#   client          the same percentile as the load generator sees it, its own queue included
#
# workers: `buffered` and `durable` with 13 KB, one worker beside two on CPUs 0 and 1. The load generator may use
# both CPUs as well, and offers a rate that keeps none of them busy: 3000 reports/s from 64 connections for each
# worker. What then differs is what workers, and twice the load generator, take from each other; with `durable`
# also the disk, which they share: the slower it is, the larger are commits and the less is a report's share.
#
# With two ack levels, 2 s and 3 tries, half of all measurements made again, it took 18 minutes. Needs oha, jq, curl and
# taskset.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

sections=load,workers seconds=3 rounds=5 sizes=2KB,13KB,62KB connections=64,256 acks=buffered,written,durable
stolen=1 tries=5
data=target/bench-data port=18080
rate=3000 # reports/s for each of the workers, in that section
syncs=1000

while (($#)); do
    case $1 in
        --sections | --seconds | --rounds | --sizes | --connections | --acks | --data | --port | --stolen | --tries)
            declare "${1#--}=${2?$1: expected a value}"
            shift 2
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

# shellcheck source=benches/server.sh
. benches/server.sh
need oha jq curl taskset
build

# Ticks for which the host ran others on CPUs 0 and 1 (proc_stat(5)).
stolen_ticks() {
    awk '/^cpu[01] / { ticks += $9 } END { print ticks }' /proc/stat
}

# Adds a row to TABLE, of what is measured now.
row() {
    echo "${*:2}" >>"$scratch/try/$1"
}

# Keeps the rows of COMMAND… from the try during which the host took least, and tries no more once that is little.
undisturbed() {
    local try ticks us taken least='' table
    for ((try = 1; try <= tries; try++)); do
        rm -rf "$scratch/try"
        mkdir "$scratch/try"
        ticks=$(stolen_ticks) us=${EPOCHREALTIME/[.,]/}
        "$@"
        us=$((${EPOCHREALTIME/[.,]/} - us)) ticks=$(($(stolen_ticks) - ticks))
        # Parts in 10,000 of two CPUs.
        taken=$((ticks * 5000000000 / (us * $(getconf CLK_TCK))))
        if [[ -z $least ]] || ((taken < least)); then
            least=$taken
            rm -rf "$scratch/least"
            mv "$scratch/try" "$scratch/least"
        fi
        ((taken > 100 * stolen)) || break
        echo "  the host took $(awk '{ print $1 / 100 }' <<<"$taken") %" >&2
    done
    ((least <= 100 * stolen)) || echo "  kept what had $(awk '{ print $1 / 100 }' <<<"$least") % of it" >&2
    for table in "$scratch/least"/*; do
        cat "$table" >>"$scratch/${table##*/}"
    done
}

# CPU time in µs that the server's process has taken but for housekeeping, and what housekeeping has.
cpu_us() {
    local housekeeping ticks
    housekeeping=$(threads | awk '$2 == "housekeeping" { us = $3 / 1000 } END { printf "%.0f", us }')
    # The name in parentheses may have blanks in it.
    ticks=$(sed 's/.*) //' "/proc/$server/stat" | awk '{ print $12 + $13 }')
    echo "$((ticks * 1000000 / $(getconf CLK_TCK) - housekeeping)) $housekeeping"
}

# Keeps what the server counts as FILE. The floor counts nothing.
scrape() {
    [[ $(<"/proc/$server/comm") != floor ]] || return 0
    curl -sf -o "$scratch/$1" "http://127.0.0.1:$((port + 1))/metrics"
}

# What changed from the scrape `before` to `after`: commits, lines, compressed bytes, mean ms of an ack, p99.
commits() {
    awk '
        /^#/ { next }
        { name = $1; sub(/\{.*/, "", name) }
        FNR == NR { had[$1] = $2; next }
        { more = $2 - had[$1] }
        /outcome="committed"/ { commits += more }
        name == "netwatch_stored_lines_total" { lines += more }
        /form="compressed"/ { bytes += more }
        name == "netwatch_ack_seconds_sum" { sum = more }
        name == "netwatch_ack_seconds_count" { count = more }
        name == "netwatch_ack_seconds_bucket" {
            split($1, part, "\"")
            bound[++buckets] = part[2]
            upto[buckets] = more
        }
        END {
            for (b = 1; upto[b] < 0.99 * count; b++);
            share = (0.99 * count - upto[b - 1]) / (upto[b] - upto[b - 1])
            p99 = bound[b - 1] + (bound[b] - bound[b - 1]) * share
            print commits, lines, bytes, sum / count * 1000, p99 * 1000
        }' "$scratch/before" "$scratch/after"
}

# Loads a server that has just started for so many seconds, with the other arguments of `load`. Prints
# `reports/s p50-ms p99-ms p99.9-ms CPU-µs housekeeping-µs RSS-MiB`.
cost() {
    local before after
    load 0.5 "${@:2}"
    scrape before
    before=$(cpu_us)
    load "$@"
    after=$(cpu_us)
    scrape after
    jq -r --arg before "$before" --arg after "$after" --argjson rss "$(rss_kib)" '
        def us($text): $text | split(" ") | map(tonumber);
        .statusCodeDistribution["200"] as $reports | .latencyPercentiles as $late |
        ([us($before), us($after)] | transpose | map((.[1] - .[0]) / $reports)) as $cpu |
        [$reports / .summary.total, $late.p50 * 1000, $late.p99 * 1000, $late["p99.9"] * 1000, $cpu[], $rss / 1024] |
        map(tostring) | join(" ")' "$scratch/summary"
}

# A line of the first table, and two of the second if it is about `durable`.
measure() {
    local size=$1 count=$2 kind=$3 all half committed_all committed_half
    start "$kind" 1 0
    all=$(cost "$seconds" 1 "$count" "$size")
    row costs "$size $count $kind $all"
    if [[ $kind == durable ]]; then
        committed_all=$(commits)
        half=$(cost "$seconds" 1 "$count" "$size" -q "$(awk '{ printf "%d", $1 / 2 }' <<<"$all")")
        committed_half=$(commits)
        # The disk is bare now.
        stop
        waits "$size $count all" "$all" "$committed_all"
        waits "$size $count half" "$half" "$committed_half"
    fi
    stop
}

# What acks waited for in the measurement KEY that cost COST and COMMITTED so much, beside the bare disk.
waits() {
    local bare line
    bare=$(taskset -c 0 "$built/examples/parts" sync "$data" "$(awk '{ printf "%d", $3 / $1 }' <<<"$3")" "$syncs")
    line=$(awk -v key="$1" '{
        reports = $9 / $8; bare_p99 = $14 / 1000; cpu = $5 * reports / 1000; allowed = 3 * bare_p99 + cpu
        print key, reports, $10 / $8 / 1000, cpu, $13 / 1000, bare_p99, $11, $12, allowed, $12 / allowed, $3
    }' <<<"$2 $3 $bare")
    row waits "$line"
}

# What no server can do without for a report of SIZE.
limits() {
    local line
    line=$(taskset -c 0 "$built/examples/parts" limits "$scratch/$1")
    row limits "$1 $line"
}

# A line of the table of workers.
share() {
    local kind=$1 workers=$2 line committed
    start "$kind" "$workers" 0,1
    line=$(cost "$seconds" 0,1 $((64 * workers)) 13KB -q $((rate * workers)))
    stop
    committed=$(commits)
    row workers "$(awk -v key="$kind $workers" '{ print key, $1, $5, $9 / $8 }' <<<"$line $committed")"
}

# The medians of each column of the file, over all lines that begin with the same KEYS fields: one line for each, in
# the order of the first.
medians() {
    awk -v keys="$2" '
        function median(list,    n, i, j, v, all) {
            n = split(list, all, " ")
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && all[j - 1] + 0 > all[j] + 0; j--) {
                    v = all[j]; all[j] = all[j - 1]; all[j - 1] = v
                }
            return n % 2 ? all[(n + 1) / 2] + 0 : (all[n / 2] + all[n / 2 + 1]) / 2
        }
        {
            key = $1
            for (i = 2; i <= keys; i++) key = key " " $i
            if (!(key in width)) order[++count] = key
            width[key] = NF - keys
            for (i = 1; i <= NF - keys; i++) seen[key, i] = seen[key, i] " " $(keys + i)
        }
        END {
            for (k = 1; k <= count; k++) {
                line = order[k]
                for (i = 1; i <= width[order[k]]; i++) line = line " " median(seen[order[k], i])
                print line
            }
        }' "$scratch/$1"
}

load_tables() {
    awk '
        table == "limits" { check[$1] = $2; json[$1] = $3; zstd[$1] = $4; next }
        { cell = $1 " " $2 }
        $3 == "floor" { floor[cell] = $8 }
        $3 == "buffered" { buffered[cell] = $4 }
        table == "all" { next }
        FNR == 1 {
            printf "size  conns  server     reports/s   p50 ms   p99 ms p99.9 ms   CPU us  sidecars  RSS MiB"
            print "  /limit  /buffered"
        }
        {
            limit = floor[cell] + check[$1] + zstd[$1]
            printf "%-5s %5s  %-9s %10.0f %8.2f %8.2f %8.2f %8.1f", $1, $2, $3, $4, $5, $6, $7, $8
            if ($3 == "floor") {
                printf "%20.1f\n%-5s %5s  limit %48.1f   floor + check %.1f + zstd %.1f (simd-json %.1f)\n", $10,
                    $1, $2, limit, check[$1], zstd[$1], json[$1]
                next
            }
            share = cell in buffered ? sprintf("%.2f", $4 / buffered[cell]) : "-"
            printf " %9.1f %8.1f %7.2f %10s\n", $9, $10, $8 / limit, share
        }' table=limits <(medians limits 1) table=all <(medians costs 3) table=costs <(medians costs 3)
    [[ -s $scratch/waits ]] || return 0
    medians waits 3 | awk '
        NR == 1 {
            print "\n                    a commit                 bare ms        ack ms"
            print "size  conns  load  reports      KB  CPU ms    p50    p99   mean    p99  allowed  /allowed  client"
        }
        {
            printf "%-5s %5s  %-4s  %7.1f %7.1f %7.2f %6.2f %6.2f %6.2f %6.2f %8.2f %9.2f %7.2f\n",
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
        }'
}

workers_table() {
    medians workers 2 | awk '
        NR == 1 { print "\nserver    workers  reports/s  reports/commit   CPU us  /one worker" }
        $2 == 1 { one[$1] = $4 }
        { printf "%-9s %7d %10.0f %15.1f %8.1f %12.2f\n", $1, $2, $3, $5, $4, $4 / one[$1] }'
}

section_load() {
    local round size count kind
    for ((round = 1; round <= rounds; round++)); do
        for size in "${sizes[@]}"; do
            undisturbed limits "$size"
            for count in "${connections[@]}"; do
                for kind in floor "${acks[@]}"; do
                    echo "round $round of $rounds: $size, $count connections, $kind" >&2
                    undisturbed measure "$size" "$count" "$kind"
                done
            done
        done
    done
    load_tables
}

section_workers() {
    local round kind workers
    for ((round = 1; round <= rounds; round++)); do
        for kind in buffered durable; do
            for workers in 1 2; do
                echo "round $round of $rounds: $kind, $workers workers" >&2
                undisturbed share "$kind" "$workers"
            done
        done
    done
    workers_table
}

bodies "${sizes[@]}" 13KB
for section in ${sections//,/ }; do
    case $section in
        load | workers) "section_$section" ;;
        *) echo "$section: expected load or workers" >&2; exit 2 ;;
    esac
done
