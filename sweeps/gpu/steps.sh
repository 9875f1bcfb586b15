# shellcheck shell=bash disable=SC2034,SC2154
# The steps of run.sh, which sources this file. Each continues the results of an earlier call.
#
#   versions   the environment: versions, driver, card
#   verify     every kernel against float64, in three dtypes, beside the tests that need a GPU: fused against
#              plain, graphs, running out of memory
#   tests      the test that compares modes, compiled ones included
#   encoders   VMamba-T and -B in modes eager, graphs, fused, fused graphs, and public if there is a checkout
#   ss2d       SS2D tuned and timed at VMamba's shapes, with its shares of a copy and a matrix product
#   products   matrix products tuned, and the candidates for the fused MLP timed
#   telling    the most informative part of Figure 4: five encoders at five resolutions, with a shared LLM
#   breakdown  the kernels of a fused encoder by their share of its time, from torch's profiler
#   profile    the bottleneck of the scan, from Nsight Compute
#   sizes      the encoders, and VMamba-S, at the study's other resolutions
#   figure     the complete figure of step telling
#   tuned      the fused encoders again, with the launch parameters tuned by products and ss2d
#
# Only by name:
#
#   operations every operation of a block, at the first and third level of VMamba-T at 1024²
#   peers      SS2D from torch.compile, mamba_ssm and the public code; also a compiled encoder
#   agreement  a few cells of the figure with the paper's protocol, 100 + 100
#   backbones  the encoders as a sweep: every resolution, all levels and through the tap
#   published  the settings that reproduce the paper's memory
#   fidelity   ViT and the LLM in other dtypes and attention backends
#   sanitize   one small case of each operation that failed in verify, under compute-sanitizer
FIRST=(versions verify encoders breakdown products ss2d tests telling)
SECOND=(versions telling profile figure sizes tuned)

device=(--device cuda)
models=(vmamba-t vmamba-b)
dtypes=(bfloat16 float32 float16)
most_telling=(--resolution 224 --resolution 1024 --resolution 4096)
telling=(--resolution 224 --resolution 1024)
studied=()
for side in 224 256 384 512 768 1024 1280 1536 2048 3072 4096 5120 6144; do
    studied+=(--resolution "$side")
done
five=(--backbone vit-b --backbone vmamba-t --backbone vmamba-b --backbone vitdet-b --backbone vit-l
    --resolution 224 --resolution 512 --resolution 1024 --resolution 2048 --resolution 4096)
cells=(--budget 2s)
all_cells=()
each=(--seconds 0.2)
# a block's operations first: their cases take less time than the scans, whose references step through pixels
verified=(norm_mlp layer_norm convolution_norm norm_linear linear depthwise_conv_silu ss2d selective_scan cross_scan
    cross_merge)
# without tests/kernels/test_backends.py, whose cases verify covers
gpu_tests=(tests/execution/test_on_a_gpu.py tests/measure/test_busy.py tests/measure/test_memory.py
    tests/measure/test_timeline.py)
gpu_tests=("$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider -vv --tb=short -m gpu
    "${gpu_tests[@]/#/$root/}")
if [ -n "${TOUCH:-}" ]; then
    each=(--seconds 0.01)
    cells=(--warm-up 1 --iterations 1)
fi
if [ -n "$small" ]; then
    device=(--device cpu)
    models=(vmamba-t)
    dtypes=(float32)
    most_telling=(--resolution 64)
    telling=(--resolution 64)
    studied=(--resolution 64 --resolution 96)
    five=(--backbone vit-t --resolution 64)
    cells=(--device cpu --llm llama-23m --warm-up 1 --iterations 2)
    all_cells=(--backbone vit-t --backbone vmamba-t --resolution 64 --resolution 96)
    each=(--seconds 0.01)
fi

bench() {
    local most=$1
    shift
    vlmprof "$most" kernels bench "${device[@]}" "${each[@]}" "$@"
}

joined() {
    local IFS=,
    echo "$*"
}

# encode SECONDS FOLDER BACKBONES MODES… -- OPTIONS…
encode() {
    local most=$1 folder=$2 names=$3 modes=() given=()
    shift 3
    while [ "$1" != -- ]; do
        modes+=(--mode "$1")
        [[ $1 != public* ]] || given=(--public "$public")
        shift
    done
    shift
    bench "$most" --backbones "$(joined "${models[@]}")" "${modes[@]}" "${given[@]}" "$@" --out "$folder"
}

sweep() {
    local most=$1 name=$2
    shift 2
    vlmprof "$most" sweep "gpu/$name" --out "$name" "$@"
}

step_versions() {
    # a second call on the same machine already has it
    [ -n "$resume" ] || [ ! -f environment.json ] || return 0
    {
        echo "commit ${VLMPROF_COMMIT:-unknown}"
        [ -n "$small" ] || nvidia-smi -q
    } >machine.txt 2>&1
    run 60 "$python" "$here/versions.py" environment.json
}

step_verify() {
    local dtype jobs=()
    if [ -z "$small" ]; then
        # one small product shows whether the card works and the unpacked kernels match
        bench 90 --op linear --level 1
        check_cache
        [ -z "$short" ] || dtypes=(bfloat16)
    fi
    for dtype in "${dtypes[@]}"; do
        # in parallel, because most of the work is on the host
        launch_job 170 "$python" -m vlmprof kernels verify "${device[@]}" --dtype "$dtype" \
            "${verified[@]/#/--op=}" >"verify-$dtype.txt" 2>&1 &
        jobs+=($!)
    done
    if [ -z "$short$small" ]; then
        # the simulated GPU of build_cache.sh cannot hold what the other tests allocate
        launch_job 120 "${gpu_tests[@]}" -k "${TOUCH:+(fused_and_plain or operators) and }not every_mode" \
            >tests.txt 2>&1 &
        jobs+=($!)
    fi
    wait "${jobs[@]}"
    grep -hE 'FAILED|NOT DET|comparisons|rror' verify-*.txt
    [ ! -f tests.txt ] || cat tests.txt
    pack
}

# it compiles whole models and compares their latencies, so it runs alone
step_tests() { [ -n "$short$small" ] || run 80 "${gpu_tests[@]}" -k every_mode; }

step_encoders() {
    local public_modes=()
    [ -z "$public" ] || public_modes=(public "public graphs")
    [ -z "$short" ] || models=(vmamba-t)
    encode 90 encoders "$(joined "${models[@]}")" fused "fused graphs" -- "${most_telling[@]}"
    [ -z "${TOUCH:-}" ] || return 0
    encode 60 encoders "$(joined "${models[@]}")" eager graphs "${public_modes[@]}" -- "${telling[@]}"
    encode 40 encoders "$(joined "${models[@]}")" eager graphs "${public_modes[@]}" -- "${most_telling[@]}"
}

step_ss2d() {
    local model
    [ -z "$short" ] || models=(vmamba-t)
    for model in "${models[@]}"; do
        [ -n "$small" ] || vlmprof 60 kernels tune --model "$model" "${most_telling[@]}"
        bench 60 --model "$model" --op ss2d "${most_telling[@]}" --level 1 --level 2 --level 3 --level 4 \
            --out "ss2d-$model"
    done
}

step_products() {
    [ -z "$short$small" ] || return 0
    local model
    for model in "${models[@]}"; do
        vlmprof 45 kernels tune --op linear --model "$model" --resolution 1024 --resolution 4096
    done
    run 45 "$python" "$here/mlp_tiles.py" 1024 4096
}

step_telling() { sweep 250 figure "${five[@]}" "${cells[@]}"; }

step_figure() { sweep 400 figure "${all_cells[@]}" "${cells[@]}"; }

step_sizes() {
    encode 90 encoders "$(joined "${models[@]}")" fused "fused graphs" -- "${studied[@]}"
    [ -n "$small" ] || encode 60 encoders vmamba-s fused "fused graphs" -- "${studied[@]}"
}

step_tuned() {
    encode 60 encoders-tuned "$(joined "${models[@]}")" fused "fused graphs" -- "${most_telling[@]}"
}

step_breakdown() {
    [ -z "$small" ] || return 0
    local model
    for model in "${models[@]}"; do
        run 60 "$python" "$here/kernel_times.py" "$model" 224 1024 4096
    done
}

step_profile() {
    if [ -n "${TOUCH:-}" ]; then
        run 60 "$python" "$here/scan.py" 1024 1
        return
    fi
    if ! command -v ncu >/dev/null; then
        echo "ncu is not installed; nothing was profiled"
        return
    fi
    local side
    for side in 1024 4096; do
        # do not change the card's clocks
        run 90 ncu --clock-control none --target-processes all --set full \
            --kernel-name 'regex:summary_kernel|output_kernel' --launch-skip 3 --launch-count 3 \
            --export "profile-$side" --force-overwrite "$python" "$here/scan.py" "$side" 2
        ncu --import "profile-$side.ncu-rep" --page details >"profile-$side.txt" 2>&1
        ncu --import "profile-$side.ncu-rep" --page source --print-source sass --csv >"profile-$side-source.csv" 2>&1
        pack
    done
}

step_operations() {
    bench 90 --model "${models[0]}" --resolution 1024 --level 1 --level 3 --out operations
}

step_peers() {
    local given=()
    [ -z "$public" ] || given=(--public "$public")
    bench 120 --model "${models[0]}" --op ss2d "${most_telling[@]}" --level 1 --level 3 --peers "${given[@]}" \
        --out peers
    encode 120 encoders "${models[0]}" compile -- "${most_telling[@]}"
}

step_backbones() { sweep 400 backbones "${all_cells[@]}" "${cells[@]}"; }
step_fidelity() { sweep 400 fidelity "${all_cells[@]}" "${cells[@]}"; }
step_published() { sweep 400 published "${all_cells[@]}" "${cells[@]}"; }
step_agreement() {
    local counted=()
    [ -z "$small${TOUCH:-}" ] || counted=("${cells[@]}")
    sweep 400 agreement "${all_cells[@]}" "${counted[@]}"
}

step_sanitize() {
    local op
    for op in $(grep -hE 'FAILED|NOT DET' verify-*.txt | awk '{ print $1 }' | sort -u); do
        run 100 compute-sanitizer --target-processes all --error-exitcode 9 \
            "$python" -m vlmprof kernels bench "${device[@]}" --op "$op" --level 1 --resolution 64 --seconds 0.01
    done
}
