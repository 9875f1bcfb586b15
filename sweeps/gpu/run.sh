#!/usr/bin/env bash
# Runs the measurements that need a GPU, most important first, in about 15 minutes on any card.
#
#   sweeps/gpu/run.sh [STEP...]     the given steps, by default those of a first call (listed in steps.sh)
#   sweeps/gpu/run.sh --second      those of a second call: the complete figure, more sizes, a profile of the scan
#
# Runs from the source tree with torch, Triton and transformers, without installing anything or changing
# settings of the card. Results are written to a separate folder. After every command, all results are archived
# to OUT, so that an interruption loses at most the running command. unpack.sh turns the archive into reports.
#
#   OUT=folder      where to write CARD.tgz; runs/gpu by default
#   TOTAL=9         minutes after which the running command is stopped and no other is started
#   RESUME=archive  results of an earlier call on another machine with the same card, to continue from; a
#                   second call on the same machine continues automatically
#   CACHE=archive   kernels compiled by build_cache.sh; triton-cache/sm_NN.txz by default
#   COMMIT=…        commit of this tree, for a copy without git
#   PUBLIC=folder   a checkout of MzeroMiko/VMamba, to time next to ours
#   PYTHON=python3  the interpreter with torch
#   SMALL=1         tiny sizes on a CPU, to test the script itself
#   TOUCH=1         run every kernel once with almost no measuring time, for build_cache.sh
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
work=${WORK:-${TMPDIR:-/tmp}/vlmprof-gpu}
out=${OUT:-$root/runs/gpu}
total=$(awk "BEGIN { print int(60 * ${TOTAL:-9}) }")
LARGEST_BYTES=$((15 << 20))
small=${SMALL:-}
public=${PUBLIC:+$(realpath "$PUBLIC")}
resume=${RESUME:+$(realpath "$RESUME")}
packed=${CACHE:+$(realpath "$CACHE")}
steps=$(realpath "${STEPS:-$here/steps.sh}")

# "NVIDIA H100 80GB HBM3, 9.0" -> h100 and sm_90
if [ -n "$small" ]; then
    card=cpu
    arch=cpu
else
    found=$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
    if [ -z "$found" ]; then
        echo "nvidia-smi reports no GPU; SMALL=1 tests this script on a CPU" >&2
        exit 2
    fi
    card=$(sed -E 's/, [0-9.]+$//; s/(NVIDIA|GeForce|Tesla) //g; s/[ -](SXM|PCIe|NVL|HBM|[0-9]+GB).*//' <<<"$found" |
        tr 'A-Z ' 'a-z-')
    arch=sm_$(sed -E 's/.*, ([0-9]+)\.([0-9]+)$/\1\2/' <<<"$found")
fi

results=$work/$card
mkdir -p "$results" "$out" || exit 2
out=$(cd "$out" && pwd)
cd "$results" || exit 2
if [ -n "$resume" ]; then
    if ! tar -C "$work" -xzf "$resume" "$card"; then
        echo "RESUME: $resume is not an archive of results on $card" >&2
        exit 2
    fi
fi
exec > >(exec tee -i -a "$results/log.txt") 2>&1
printed_by=$!

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export VLMPROF_COMMIT=${COMMIT:-$(git -C "$root" describe --always --dirty --abbrev=12 2>/dev/null)}
export VLMPROF_TUNING_CACHE=$results/ss2d-tuning.json
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$work/triton}
# with torch 2.11, a pool of compile workers may delay the exit of a process by 300 s
export TORCHINDUCTOR_COMPILE_THREADS=1

left() { echo $((total - SECONDS)); }

# Archive all results atomically; if the archive is too large, leave out the profiler's files.
pack() {
    local whole=$out/$card.tgz without=()
    while true; do
        # exit code 1: a file changed meanwhile, which may happen after a command was killed
        tar -C "$work" "${without[@]}" -czf "$whole.part" "$card" || [ $? -eq 1 ] || return
        [ "${#without[@]}" -eq 0 ] && [ "$(stat -c %s "$whole.part")" -gt "$LARGEST_BYTES" ] || break
        without=(--exclude='*.ncu-rep')
        echo "the archive is larger than $((LARGEST_BYTES >> 20)) MiB; leaving out *.ncu-rep"
    done
    mv -f "$whole.part" "$whole"
}

# The command as shown in reports: without folders of this machine.
named() {
    local words= word
    for word in "$@"; do
        [[ $word =~ ^[-A-Za-z0-9_@%+=:,./]+$ ]] || word="'$word'"
        words+=" $word"
    done
    words=${words//"$python -m vlmprof"/vlmprof}
    words=${words//"$python"/python}
    [ -z "$public" ] || words=${words//"$public"/CHECKOUT}
    words=${words//"$root/"/}
    words=${words//"$root"/.}
    printf '%s' "${words# }"
}

# launch SECONDS COMMAND…: stopped after SECONDS, or when the total time is over; its rows are saved
launch() {
    local most=$1 rest began=$SECONDS code=0
    shift
    rest=$(($(left) - 15))
    [ -z "${TOUCH:-}" ] || most=$((10 * most))
    if [ "$rest" -lt 10 ]; then
        echo "-- no time left for: $(named "$@")"
        return 124
    fi
    # in the background, so that this script can handle signals meanwhile
    timeout --kill-after=10 "$((most < rest ? most : rest))" "$@" &
    running=$!
    wait "$running" || code=$?
    running=
    printf '%s\t%s\t%s\n' "$((SECONDS - began))" "$code" "$(named "$@")" >>"$results/commands.tsv"
    [ "$code" -eq 0 ] || echo "-- ended with $code after $((SECONDS - began)) s: $(named "$@")"
    return "$code"
}

# launch for a background job, whose output the caller redirects
launch_job() {
    trap '[ -z "$running" ] || kill "$running"; exit 143' TERM
    launch "$@"
}

# launch, then archive all results
run() {
    local code=0
    launch "$@" || code=$?
    pack
    return "$code"
}

vlmprof() {
    local most=$1
    shift
    run "$most" "$python" -m vlmprof "$@"
}

cubins() { find "$TRITON_CACHE_DIR" -name '*.cubin' 2>/dev/null | wc -l; }

# Triton's files contain the path of the cache folder: build_cache.sh writes a placeholder instead
unpack_cache() {
    packed=${packed:-$root/triton-cache/$arch.txz}
    mkdir -p "$TRITON_CACHE_DIR"
    if [ "$(cubins)" -eq 0 ] && [ -f "$packed" ]; then
        tar -C "$TRITON_CACHE_DIR" -xJf "$packed" &&
            find "$TRITON_CACHE_DIR" -name '__grp__*.json' -exec sed -i "s#@TRITON_CACHE_DIR@#$TRITON_CACHE_DIR#g" {} +
    fi
    carried=$(cubins)
    echo "$carried compiled kernels unpacked ($(basename "$packed"))"
}

# Called after the first command that launches kernels. If it compiled any kernel, the cache does not match the
# Triton or Python of this machine. All kernels then need compiling, so the plan is shortened.
short=
check_cache() {
    local new=$(($(cubins) - carried))
    echo "$new kernels compiled by the first command"
    [ "$new" -eq 0 ] || [ -n "${TOUCH:-}" ] || short=1
    [ -z "$short" ] || echo "-- the shorter plan, because the cache does not match"
}

# shellcheck source=steps.sh
source "$steps"

running=
stop() {
    kill $(jobs -p) 2>/dev/null
    echo "-- stopped after $SECONDS s"
    pack
    exit 130
}
trap stop INT TERM

# as one function, so that editing this file does not affect a running script
main() {
    case ${1:-} in
    '') set -- "${FIRST[@]}" ;;
    --second) set -- "${SECOND[@]}" ;;
    esac
    for name in "$@"; do
        if ! declare -F "step_$name" >/dev/null; then
            echo "no step $name: ${FIRST[*]} ${SECOND[*]}"
            exit 2
        fi
    done
    # results without the versions and the card that they were measured with cannot be reported
    if [[ " $* " != *" versions "* && -z ${TOUCH:-} ]] && declare -F step_versions >/dev/null; then
        set -- versions "$@"
    fi
    echo "== $card ($arch), commit ${VLMPROF_COMMIT:-unknown}, $total s for $*"
    unpack_cache
    for name in "$@"; do
        echo "== $name (${SECONDS} s)"
        "step_$name"
    done
    echo "== done (${SECONDS} s): $(cubins) kernels, $carried of them carried; $out/$card.tgz"
    pack
    exec >&- 2>&-
    wait "$printed_by"
    exit 0
}
main "$@"
