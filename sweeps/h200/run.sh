#!/usr/bin/env bash
# Figure 4 on one GPU, in steps that each resume and print a short table, the most telling first.
#
#   sweeps/h200/run.sh [STEP...]      one or more of the steps below; all of them by default
#
#   kernels     every kernel against float64, then SS2D tuned and timed at VMamba-T's and VMamba-B's shapes
#   encoders    VMamba-T/S/B eager, graphed and fused, beside the paper's GPU vision latency
#   figure      Figure 4, adaptive and with a shared LLM stage, laid over the paper's points
#   peers       SS2D by torch.compile, mamba_ssm and the public code; whole encoders compiled
#   agreement   a few cells of the figure by the paper's own 100 + 100
#   backbones   the encoders as a sweep: every resolution, all levels and through the tap
#   published   the settings that the paper's memory tells of
#   fidelity    ViT and the LLM in other dtypes and attention backends
#   profile     what limits the scan, by Nsight Compute where it is installed
#
#   OUT=folder         where results go (reports/h200)
#   MINUTES=9          longest time for one command; run the step again to go on
#   TOTAL=9.5          minutes after which nothing more is started and what runs is ended; none by default
#   PUBLIC=checkout    of MzeroMiko/VMamba, to time beside ours
#   SMALL=1            tiny sizes on a CPU, to try the script itself
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-reports/h200}
seconds() { awk "BEGIN { print int(60 * $1) }"; }
limit=$(seconds "${MINUTES:-9}")
total=$(seconds "${TOTAL:-100000}")
mkdir -p "$out"

small=()
device=cuda
models=(vmamba-t vmamba-b)
encoders=(vmamba-t vmamba-b vmamba-s)
dtypes=(bfloat16 float16 float32)
telling=(224 1024 4096)
studied=(224 256 384 512 768 1024 1280 1536 2048 3072 4096 5120 6144)
if [ -n "${SMALL:-}" ]; then
    small=(--device cpu --llm llama-23m --dtype bfloat16 --mode eager --attention auto --backbone vit-t
        --backbone vmamba-t --resolution 64 --resolution 96 --sampling fixed --warm-up 1 --iterations 2)
    device=cpu
    models=(vmamba-t)
    encoders=(vmamba-t)
    telling=(64)
    studied=(64 96)
fi
public=()
[ -z "${PUBLIC:-}" ] || public=(--public "$PUBLIC")

# a command that is cut short has kept its rows, and the same command goes on
run() {
    local left=$((total - SECONDS))
    if [ "$left" -lt 10 ]; then
        echo "no time left for: $*" >&2
        return 124
    fi
    timeout --signal=INT --kill-after=15 "$((left < limit ? left : limit))" "$@"
}

bench() { run vlmprof kernels bench --device "$device" "$@"; }

sweep() {
    run vlmprof sweep "h200/$1" --out "$out/$1" "${small[@]}"
    run vlmprof plot "$out/$1" --reference kuo2026
}

kernels() {
    for dtype in "${dtypes[@]}"; do
        # most of it is compiling, which takes one core each
        run vlmprof kernels verify --device "$device" --dtype "$dtype" >"$out/kernels-verify-$dtype.txt" 2>&1 &
    done
    wait
    grep -hE 'FAILED|NOT DET|comparisons|rror' "$out"/kernels-verify-*.txt
    for model in "${models[@]}"; do
        [ "$device" = cpu ] || run vlmprof kernels tune --model "$model" "${telling[@]/#/--resolution=}"
        bench --model "$model" --op ss2d "${telling[@]/#/--resolution=}" --level 1 --level 2 --level 3 --level 4 \
            --seconds 0.2 --out "$out/kernels-$model" | tee "$out/kernels-$model.txt"
    done
    bench --model "${models[0]}" --resolution "${telling[1]:-${telling[0]}}" --level 1 --level 3 --seconds 0.2 \
        --out "$out/kernels-all" | tee "$out/kernels-all.txt"
}

encoders() {
    local modes=(--mode eager --mode graphed --mode fused --mode "fused graphed")
    [ -z "${PUBLIC:-}" ] || modes+=(--mode public --mode "public graphed")
    for sides in "${telling[*]}" "${studied[*]}"; do
        for model in "${encoders[@]}"; do
            bench --backbones "$model" $(printf -- "--resolution=%s " $sides) --seconds 0.2 "${modes[@]}" "${public[@]}" \
                --out "$out/encoders-$model" | tee -a "$out/encoders.txt"
        done
    done
}

peers() {
    bench --model "${models[0]}" --op ss2d --resolution "${telling[0]}" --level 1 --level 3 --peers \
        "${public[@]}" --out "$out/peers" | tee "$out/peers.txt"
    bench --backbones "${encoders[0]}" --mode compiled "${telling[@]/#/--resolution=}" \
        --out "$out/encoders-compiled" | tee "$out/encoders-compiled.txt"
}

profile() {
    if ! command -v ncu >/dev/null; then
        echo "ncu is not installed; nothing was profiled" | tee "$out/profile.txt"
        return
    fi
    run ncu --set full --kernel-name 'regex:summary|output|carry' --launch-skip 12 --launch-count 6 \
        --export "$out/profile" --force-overwrite \
        vlmprof kernels bench --op ss2d --level 1 --resolution 1024 --seconds 0.1 | tee "$out/profile.txt"
}

step() {
    case $1 in
    kernels | encoders | peers | profile) "$1" ;;
    backbones | fidelity) sweep "$1" ;;
    figure)
        sweep figure
        run vlmprof compare "$out/figure" --reference kuo2026 | tee "$out/figure-against-paper.txt"
        run vlmprof report "$out/figure" --reference kuo2026
        ;;
    published)
        sweep published
        run vlmprof compare "$out/published" --reference kuo2026 | tee "$out/published-against-paper.txt"
        ;;
    agreement)
        sweep agreement
        run vlmprof compare "$out/figure" "$out/agreement" | tee "$out/adaptive-against-fixed.txt"
        ;;
    *)
        echo "no step $1: kernels, encoders, figure, peers, agreement, backbones, published, fidelity or profile" >&2
        exit 2
        ;;
    esac
}

[ $# -gt 0 ] || set -- kernels encoders figure peers agreement backbones published fidelity profile
for name in "$@"; do
    echo "== $name (${SECONDS} s)"
    step "$name"
done
