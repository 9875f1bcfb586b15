#!/usr/bin/env bash
# Compiles, without a GPU, the kernels that run.sh will launch on one, and packs them to travel with the tree.
#
#   sweeps/gpu/build_cache.sh [--arch sm_90] [--out triton-cache]     leaves triton-cache/sm_90.txz
#
# It takes the steps themselves on the simulated GPU (tests/simulated_gpu), so that keys, variants and alignment
# are those of a run. They serve where Python, Triton and the kernels' source are the same: not only functions
# but the lines they start at, and which kernel a process asks for first: Triton takes the globals of a device
# function into a kernel's key only if another kernel has had that function hashed before. About fifteen minutes of
# a processor, on all cores.
#
#   PYTHON=python3  the Python of the machine with the GPU, with its torch (a build with CUDA) and its Triton
#   BUILD=folder    where to compile, and what to go on from; a temporary folder by default
#   STEPS_ASKED='verify encoders'   others than all the steps that launch kernels of this project
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
arch=sm_90
out=$root/triton-cache
while [ $# -gt 0 ]; do
    case $1 in
    --arch) arch=${2:?} ;;
    --out) out=${2:?} ;;
    *)
        sed -n '2,/^set/ { /^set/d; s/^# \{0,1\}//; p }' "$0" >&2
        exit 2
        ;;
    esac
    shift 2
done
if ! [[ $arch =~ ^sm_([0-9]+)([0-9])$ ]]; then
    echo "$arch is not an architecture; write sm_90" >&2
    exit 2
fi
export SIMULATED_CAPABILITY=${BASH_REMATCH[1]}.${BASH_REMATCH[2]}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
build=${BUILD:-$scratch/triton}
mkdir -p "$build" "$out"
build=$(cd "$build" && pwd)
out=$(cd "$out" && pwd)

# verify finds every result wrong, since a simulated GPU computes nothing; what counts is what was compiled
export PYTHON=$python TOUCH=1 TOTAL=600 CACHE=none TRITON_CACHE_DIR=$build OMP_NUM_THREADS=1 scratch here
printf '%s\n' ${STEPS_ASKED:-verify tests sizes encoders ss2d operations} >"$scratch/steps"
nice "$python" "$root/tests/simulated_gpu/simulate.py" xargs -a "$scratch/steps" -P "$(nproc)" -I{} \
    bash -c 'OUT=$scratch/{} WORK=$scratch/{} "$here/run.sh" {}' | grep -E '^(==|--)' || true

cd "$build"
count=$(find . -name '*.cubin' | wc -l)
if [ "$count" -eq 0 ]; then
    echo "nothing was compiled" >&2
    exit 1
fi
# groups name the folder they were compiled in: run.sh puts its own in the place of this mark
mkdir "$scratch/packed"
find . \( -name '*.cubin' -o -name '*.so' -o -name '*.json' \) -print0 | tar -cf - --null -T - | tar -xf - -C "$scratch/packed"
find "$scratch/packed" -name '__grp__*.json' -exec sed -i "s#$build#@TRITON_CACHE_DIR@#g" {} +
tar -C "$scratch/packed" --sort=name --owner=0 --group=0 -cf - . | nice xz -T0 -6 >"$out/$arch.txz.part"
mv "$out/$arch.txz.part" "$out/$arch.txz"
echo "$count kernels for $arch, $(find . -name '*.so' | wc -l) launchers: $(du -h "$out/$arch.txz" | cut -f1) in $out/$arch.txz"
