#!/usr/bin/env bash
# Figure 4 on one GPU, in steps that each fit into ten minutes, resume, and print a short table.
#
#   sweeps/h200/run.sh [STEP...]      one or more of the steps below; all of them by default
#
#   kernels     SS2D against float64, tuned, then timed at VMamba-T's and VMamba-B's shapes
#   encoders    VMamba-T/S/B eager, compiled, graphed and fused, beside the paper's GPU vision latency
#   backbones   the same as a sweep: every resolution, all levels and through the tap
#   figure      Figure 4, adaptive and with a shared LLM stage, laid over the paper's points
#   agreement   a few of its cells by the paper's own 100 + 100
#   fidelity    ViT and the LLM in other dtypes and attention backends
#   profile     what limits the scan, by Nsight Compute where it is installed
#
#   OUT=folder         where results go (reports/h200)
#   MINUTES=9          longest time for one command; run the step again to go on
#   PUBLIC=checkout    of MzeroMiko/VMamba, to time beside ours
#   SMALL=1            tiny sizes on a CPU, to try the script itself
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-reports/h200}
limit=$((${MINUTES:-9} * 60))
mkdir -p "$out"

small=()
device=cuda
models=(vmamba-t vmamba-b)
encoders=(vmamba-t vmamba-s vmamba-b)
shapes=(--resolution=224 --resolution=1024 --resolution=4096)
studied=(224 256 384 512 768 1024 1280 1536 2048 3072 4096 5120 6144)
if [ -n "${SMALL:-}" ]; then
    small=(--device cpu --llm llama-23m --dtype float32 --mode eager --attention auto --backbone vit-t
        --backbone vmamba-t --resolution 64 --resolution 96 --sampling fixed --warm-up 1 --iterations 2)
    device=cpu
    models=(vmamba-t)
    encoders=(vmamba-t)
    shapes=(--resolution=64)
    studied=(64 96)
fi
public=()
[ -z "${PUBLIC:-}" ] || public=(--public "$PUBLIC")

# a step that is cut short has kept its rows, and the same command goes on
run() { timeout --signal=INT "$limit" "$@"; }

sweep() {
    run vlmprof sweep "h200/$1" --out "$out/$1" "${small[@]}"
    run vlmprof plot "$out/$1" --reference kuo2026
}

kernels() {
    run vlmprof kernels verify --device "$device" | tee "$out/kernels-verify.txt"
    for model in "${models[@]}"; do
        [ "$device" = cpu ] || run vlmprof kernels tune --model "$model" "${shapes[@]}"
        run vlmprof kernels bench --device "$device" --model "$model" "${shapes[@]}" --peers "${public[@]}" \
            --out "$out/kernels-$model" | tee "$out/kernels-$model.txt"
    done
}

encoders() {
    for model in "${encoders[@]}"; do
        for pixels in "${studied[@]}"; do
            folder=$out/encoders/$model-$pixels
            [ -e "$folder/backbones.csv" ] || run vlmprof kernels bench --device "$device" --backbones "$model" \
                --resolution "$pixels" --seconds 0.3 "${public[@]}" --out "$folder" | tee -a "$out/encoders.txt"
        done
    done
}

profile() {
    if ! command -v ncu >/dev/null; then
        echo "ncu is not installed; nothing was profiled" | tee "$out/profile.txt"
        return
    fi
    run ncu --set full --kernel-name 'regex:ss2d|scan' --launch-skip 12 --launch-count 6 \
        --export "$out/profile" --force-overwrite \
        vlmprof kernels bench --op ss2d --level 1 --resolution 1024 --seconds 0.1 | tee "$out/profile.txt"
}

step() {
    case $1 in
    kernels | encoders | profile) "$1" ;;
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
        echo "no step $1: kernels, encoders, backbones, figure, agreement, fidelity or profile" >&2
        return 2
        ;;
    esac
}

[ $# -gt 0 ] || set -- kernels encoders backbones figure agreement fidelity profile
for name in "$@"; do
    echo "== $name"
    step "$name" || exit
done
