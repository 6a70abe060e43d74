#!/usr/bin/env bash
# Measures the server while it has nothing to do: what wakes it, and what memory it keeps.
#
#   bash benches/idle.sh [OPTION]…
#
#   --sections LIST      of wakes,memory                       (both)
#   --seconds N          seconds that wakes are counted        (10)
#   --connections LIST   idle connections that are held        (1000,10000)
#   --data DIR           where segments go                     (target/bench-data; removed at the end)
#   --port N             a free port, and the one after it     (18080)
#
# wakes: two workers, after some load, for so many seconds: how often each thread of the server waited anew, its
# CPU time, and in a second turn the system calls that came back, by strace if that is there. Threads that never
# ran are left out. The server is to take less than 0.1 % of one CPU.
#
#   core           looks at date and settings every 500 ms (250 with connections); the runtime's timer wakes it twice,
#                  since it counts what is beyond 64 ms in steps of 64 ms first
#   housekeeping   looks at the times of two directories every 2 s, and at the free space every 10 s
#
# memory: what is resident of two workers, after the start; with idle keep-alive connections that have posted
# 2 KB each; with 256 busy ones that post 62 KB for 5 s, at the end of that; and then with no connection. Segments
# are sealed after 10 s here: what a core has for its batches is given back when that is due and nothing came.
# Huge pages are 2 MiB that count whole, whatever is used of them.
#
# Needs oha, jq, curl and taskset, and for 10,000 connections as many descriptors (`ulimit -Hn`).
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

sections=wakes,memory seconds=10 connections=1000,10000 data=target/bench-data port=18080

while (($#)); do
    case $1 in
        --sections | --seconds | --connections | --data | --port)
            declare "${1#--}=${2?$1: expected a value}"
            shift 2
            ;;
        *)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
done

# shellcheck source=benches/server.sh
. benches/server.sh
need oha jq curl taskset
build

section_wakes() {
    start durable 2 0,1
    load 1 0,1 64 13KB
    # What follows load: sidecars, and memory that goes back.
    sleep 10
    threads >"$scratch/before"
    sleep "$seconds"
    threads >"$scratch/after"
    : >"$scratch/calls"
    if command -v strace >/dev/null; then
        timeout "$seconds" strace -f -qq -o "$scratch/trace" -p "$server" || (($? == 124))
        # A call that is interrupted by another thread's has two lines, and its end is on the second.
        sed -nE '/ = /s/^([0-9]+) +(<\.\.\. )?([a-z_0-9]+).*/\1 \3/p' "$scratch/trace" >"$scratch/calls"
    else
        echo 'strace is not installed: no system calls are counted' >&2
    fi
    stop
    wakes_table
}

wakes_table() {
    awk -v seconds="$seconds" '
        table == "calls" { if (!calls[$1, $2]++) names[$1] = names[$1] " " $2; next }
        table == "before" { had_ns[$1] = $3; had[$1] = $4; next }
        FNR == 1 { printf "in %d s       waits  CPU ms  system calls\n", seconds }
        {
            us = ($3 - had_ns[$1]) / 1000; waits = $4 - had[$1]; all += us
            if (!us && !names[$1]) next
            list = ""
            for (n = split(names[$1], name, " "); n; n--) list = list sprintf("  %s %d", name[n], calls[$1, name[n]])
            printf "%-12s %6d %7.2f%s\n", $2, waits, us / 1000, list
        }
        END { printf "in all %6s %14.2f   %.3f %% of a CPU\n", "", all / 1000, all / seconds / 10000 }' \
        table=calls "$scratch/calls" table=before "$scratch/before" table=after "$scratch/after"
}

# A line about what is resident now, and WHAT it is counted with.
resident() {
    awk -v what="$1" -v rss="$(rss_kib)" '$1 == "AnonHugePages:" {
        printf "%-36s %7.1f %11.1f\n", what, rss / 1024, $2 / 1024
    }' "/proc/$server/smaps_rollup"
}

# Opens so many further connections, which stay idle.
hold() {
    local answers=$scratch/idle-$1
    "$built/examples/parts" idle "127.0.0.1:$port" "$1" "$scratch/2KB" <&3 >"$answers" &
    clients+=" $!"
    until grep -q idle "$answers"; do
        kill -0 $!
        sleep 0.1
    done
}

section_memory() {
    local count held=0 before busy
    # Nothing is ever written to it, so that clients who wait for its end stay.
    mkfifo "$scratch/hold"
    exec 3<>"$scratch/hold"
    ulimit -Sn "$(ulimit -Hn)"
    printf '\n%-36s %7s %11s\n' 'resident, MiB' all 'huge pages'
    start written 2 0,1 CONNECTIONS_PER_IP=1000000
    resident 'after the start'
    for count in ${connections//,/ }; do
        before=$(rss_kib)
        hold $((count - held))
        resident "$count idle connections"
        awk -v kib=$(($(rss_kib) - before)) -v more=$((count - held)) \
            'BEGIN { printf "%42.2f KiB for each of %d more\n", kib / more, more }'
        held=$count
    done
    stop
    start durable 2 0,1 FLUSH_SECS=10s
    resident 'after the start'
    load 5 0,1 256 62KB &
    busy=$!
    sleep 4.5
    resident '256 busy connections'
    wait "$busy"
    count=0
    for after in 1 5 10 20 40; do
        sleep $((after - count))
        count=$after
        resident "$after s after their end"
    done
    stop
}

bodies 2KB 13KB 62KB
for section in ${sections//,/ }; do
    case $section in
        wakes | memory) "section_$section" ;;
        *) echo "$section: expected wakes or memory" >&2; exit 2 ;;
    esac
done
