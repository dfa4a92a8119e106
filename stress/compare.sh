#!/bin/bash
# Compares ccl with gloo, Open MPI and plain sockets on loopback and on emulated networks: compare.sh [FOLDER]
#
# FOLDER, by default target/compare, then holds the results of each network as JSON, all of them as table.md, and as
# plot.svg. Needs root for the emulator. Set in the environment:
#   NETWORKS  emulated networks, as PRESET or PRESET:RATE         BUDGET  time of each network
#   WORLDS    numbers of processes                                SIZES   of buffers on emulated networks
set -euo pipefail

cd "$(dirname "$0")/.."
folder=${1:-target/compare}
networks=${NETWORKS-lan metro:500m continent:500m ocean:200m bad:200m sites:500m uneven:500m}
worlds=${WORLDS:-2,4}
budget=${BUDGET:-10m}
sizes=${SIZES:-4,4KiB,64KiB,1MiB,16MiB}
hosts=$(tr , '\n' <<<"$worlds" | sort -n | tail -n 1)

cargo build --release --locked -p ccl-cli -p ccl-stress
stress/peers.sh
bin=${CARGO_TARGET_DIR:-target}/release
mkdir -p "$folder"
rm -f "$folder"/*.json
"$bin/ccl" bench compare --worlds "$worlds" --budget "$budget" --save "$folder/0-loopback.json"
number=0
for network in $networks; do
    number=$((number + 1))
    preset=${network%%:*}
    rate=${network#"$preset"}
    result=$folder/$number-$preset.json
    # shellcheck disable=SC2086
    "$bin/ccl-stress" wan compare --preset "$preset" ${rate:+--rate "${rate#:}"} --hosts "$hosts" -- \
        --worlds "$worlds" --sizes "$sizes" --forms out-of-place --budget "$budget" --save "$result" || {
        echo "$network is left out, for the reason above" >&2
        rm -f "$result"
    }
done
all=$(printf '%s\n' "$folder"/*.json | paste -sd,)
"$bin/ccl" bench compare --from "$all" --svg "$folder/plot.svg" --markdown | tee "$folder/table.md"
