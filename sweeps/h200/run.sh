#!/usr/bin/env bash
# Figure 4 on one GPU, in steps that each fit into ten minutes, resume, and print a short table.
#
#   sweeps/h200/run.sh [STEP...]      kernels backbones figure agreement fidelity; all by default
#   OUT=folder                        where runs go (reports/h200)
#   MINUTES=9                         longest time for one step; run it again to go on
#   SMALL=1                           tiny sizes on a CPU, to try the script itself
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-reports/h200}
limit=$((${MINUTES:-9} * 60))
mkdir -p "$out"

small=()
resolutions=(224 1024 4096)
if [ -n "${SMALL:-}" ]; then
    small=(--device cpu --llm llama-23m --dtype float32 --mode eager --attention auto --backbone vit-t
        --backbone vmamba-t --resolution 64 --resolution 96 --sampling fixed --warm-up 1 --iterations 2)
    resolutions=(64)
fi

# a step that is cut short has kept its rows, and the same command goes on
run() { timeout --signal=INT "$limit" "$@"; }

sweep() {
    run vlmprof sweep "h200/$1" --out "$out/$1" "${small[@]}"
    run vlmprof plot "$out/$1" --reference kuo2026
}

step() {
    case $1 in
    kernels)
        run vlmprof kernels verify | tee "$out/kernels-verify.txt"
        run vlmprof kernels bench "${resolutions[@]/#/--resolution=}" --out "$out/kernels" | tee "$out/kernels-bench.txt"
        ;;
    backbones | fidelity) sweep "$1" ;;
    figure)
        sweep figure
        run vlmprof compare "$out/figure" --reference kuo2026 | tee "$out/figure-against-paper.txt"
        run vlmprof report "$out/figure" --reference kuo2026
        ;;
    agreement)
        sweep agreement
        run vlmprof compare "$out/figure" "$out/agreement" | tee "$out/adaptive-against-fixed.txt"
        ;;
    *)
        echo "no step $1: kernels, backbones, figure, agreement or fidelity" >&2
        return 2
        ;;
    esac
}

[ $# -gt 0 ] || set -- kernels backbones figure agreement fidelity
for name in "$@"; do
    echo "== $name"
    step "$name" || exit
done
