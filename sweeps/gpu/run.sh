#!/usr/bin/env bash
# What a GPU that is lent for a quarter of an hour is asked, the most telling first, whatever card it is.
#
#   sweeps/gpu/run.sh [STEP...]     the steps of a first call (steps.sh says which, and what each shows)
#   sweeps/gpu/run.sh --second      those of a second one: the figure to its end, other sizes, what limits the scan
#
# Runs from the bare tree with torch, Triton and transformers; installs nothing, changes no setting of the card.
# Results go to a folder of their own, and after every command all of them as one archive to OUT, so that
# whatever stops this script costs at most the command that was running. unpack.sh makes reports of it.
#
#   OUT=folder      where CARD.tgz is left; runs/gpu by default
#   TOTAL=9         minutes after which what runs is ended and nothing more is started
#   RESUME=archive  of an earlier call on another machine with the same card: goes on from its rows, as a second
#                   call on the same machine does by itself
#   CACHE=archive   of kernels that build_cache.sh has compiled; triton-cache/sm_NN.txz by default
#   COMMIT=…        of this tree, where there is no git to ask
#   PUBLIC=folder   a checkout of MzeroMiko/VMamba, to time beside ours
#   PYTHON=python3  the interpreter that has torch
#   SMALL=1         tiny sizes on a CPU, to try the script itself
#   TOUCH=1         every kernel once and next to no time measuring: what build_cache.sh wants
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
        echo "nvidia-smi names no GPU here; SMALL=1 tries this script on a CPU" >&2
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
        echo "RESUME: $resume is no archive of results on $card" >&2
        exit 2
    fi
fi
exec > >(exec tee -i -a "$results/log.txt") 2>&1
printed_by=$!

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export VLMPROF_COMMIT=${COMMIT:-$(git -C "$root" describe --always --dirty --abbrev=12 2>/dev/null)}
export VLMPROF_TUNING_CACHE=$results/ss2d-tuning.json
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$work/triton}
# with torch 2.11 a pool of compilers may keep a process from ending for 300 s
export TORCHINDUCTOR_COMPILE_THREADS=1

left() { echo $((total - SECONDS)); }

# All results in one file, whole at every moment; the profiler's own files stay out where it grows too large.
pack() {
    local whole=$out/$card.tgz without=()
    while true; do
        # 1: a file grew meanwhile, as those of a command that was killed may
        tar -C "$work" "${without[@]}" -czf "$whole.part" "$card" || [ $? -eq 1 ] || return
        [ "${#without[@]}" -eq 0 ] && [ "$(stat -c %s "$whole.part")" -gt "$LARGEST_BYTES" ] || break
        without=(--exclude='*.ncu-rep')
        echo "the archive is over $((LARGEST_BYTES >> 20)) MiB; *.ncu-rep stay out of it"
    done
    mv -f "$whole.part" "$whole"
}

# As the report names a command: without this machine's folders.
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

# launch SECONDS COMMAND…: ended after so long, or when the time for everything is over; its rows are kept
launch() {
    local most=$1 rest began=$SECONDS code=0
    shift
    rest=$(($(left) - 15))
    [ -z "${TOUCH:-}" ] || most=$((10 * most))
    if [ "$rest" -lt 10 ]; then
        echo "-- no time left for: $(named "$@")"
        return 124
    fi
    # in the background, so that this script hears a signal meanwhile
    timeout --kill-after=10 "$((most < rest ? most : rest))" "$@" &
    running=$!
    wait "$running" || code=$?
    running=
    printf '%s\t%s\t%s\n' "$((SECONDS - began))" "$code" "$(named "$@")" >>"$results/commands.tsv"
    [ "$code" -eq 0 ] || echo "-- ended with $code after $((SECONDS - began)) s: $(named "$@")"
    return "$code"
}

# the same as a job beside others, whose output the caller sends elsewhere
beside() {
    trap '[ -z "$running" ] || kill "$running"; exit 143' TERM
    launch "$@"
}

# the same, and everything there is goes into the archive
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

# Triton's files name the folder they lie in: build_cache.sh leaves a mark there
unpack_cache() {
    packed=${packed:-$root/triton-cache/$arch.txz}
    mkdir -p "$TRITON_CACHE_DIR"
    if [ "$(cubins)" -eq 0 ] && [ -f "$packed" ]; then
        tar -C "$TRITON_CACHE_DIR" -xJf "$packed" &&
            find "$TRITON_CACHE_DIR" -name '__grp__*.json' -exec sed -i "s#@TRITON_CACHE_DIR@#$TRITON_CACHE_DIR#g" {} +
    fi
    carried=$(cubins)
    echo "$carried compiled kernels carried ($(basename "$packed"))"
}

# After the first command that launches kernels. One that was carried in vain means that all were: then this
# machine has another Triton or Python, everything costs its compiling, and the plan is a shorter one.
short=
check_cache() {
    local new=$(($(cubins) - carried))
    echo "$new kernels compiled anew by the first command"
    [ "$new" -eq 0 ] || [ -n "${TOUCH:-}" ] || short=1
    [ -z "$short" ] || echo "-- the shorter plan, since the cache did not serve"
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

# in one piece, so that nothing changes under a run while this file is edited
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
