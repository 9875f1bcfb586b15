#!/usr/bin/env bash
# Turns the archive of run.sh into reports, on a machine without a GPU: reports/CARD, ready to be committed.
#
#   sweeps/gpu/unpack.sh ARCHIVE [FOLDER]     writes to FOLDER/CARD; FOLDER is reports by default
#
# The reports contain rows and samples, tables, the figure with the paper's points, the commands and the
# environment. Logs and the full output of nvidia-smi are left out, because they identify machine and card.
#
#   PYTHON=python3  an interpreter with the project's dependencies
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ ! -f "$1" ]; then
    echo "usage: sweeps/gpu/unpack.sh ARCHIVE [FOLDER]${1:+; there is no archive $1}" >&2
    exit 2
fi
archive=$(realpath "$1")
reports=${2:-$root/reports}
export PYTHONPATH=$root
vlmprof() { "$python" -m vlmprof "$@"; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tar -C "$scratch" -xzf "$archive"
card=$(ls "$scratch")
mkdir -p "$reports/$card"
cd "$reports/$card"
tar -C "$scratch/$card" -cf - --exclude=logs --exclude='*.lock' --exclude=log.txt --exclude=machine.txt --exclude=tests.txt \
    --exclude='*.ncu-rep' --exclude='*-source.csv' --exclude='*.png' --exclude='*.pdf' --exclude='*.part' . | tar -xf -

ending() { awk -F'\t' '$2 == 0 { s = "" } $2 == 124 || $2 == 137 { s = ", ended by its time limit" }
    $2 != 0 && $2 != 124 && $2 != 137 { s = ", ended with " $2 } { printf "%5d s  %s%s\n", $1, $3, s }' commands.tsv; }

# the fields of nvidia-smi's output that matter for a measurement
card_facts() {
    grep -E '^ *(Product Name|Driver Version|CUDA Version|Persistence Mode|MIG Mode|Current ECC|Compute Mode|Current Power Limit|Default Power Limit|Graphics|SM|Memory|Total) +:' \
        "$scratch/$card/machine.txt" | awk '!seen[$0]++' || true
}

verdicts() {
    local file name
    for file in verify-*.txt; do
        [ -f "$file" ] || continue
        name=${file#verify-}
        echo "- ${name%.txt}: $(grep -h comparisons "$file" || echo 'cut short, see the file')"
        grep -hE 'FAILED|NOT DET' "$file" | sed 's/^/    /' || true
    done
}

{
    echo "# $card"
    echo
    echo "Results of \`sweeps/gpu/run.sh\`, formatted by \`sweeps/gpu/unpack.sh\`."
    echo
    "$python" - <<'P'
import json
facts = json.load(open("environment.json"))
versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
driver = next((gpu["driver"] for gpu in facts["gpus"]), None)
print(f"{facts['device_name']}, driver {driver or 'none'}, CUDA {facts['cuda_version']}; Python {facts['python']}, {versions};")
print(f"{facts['cpu_cores']} cores of {facts['cpu']}; commit {facts['commit']}; started {facts['started_at']}.")
P
    for folder in encoders encoders-tuned; do
        [ -f "$folder/backbones.json" ] || continue
        printf '\n## %s\n\n' "$([ "$folder" = encoders ] && echo 'Vision encoders' || echo 'Vision encoders, launches tuned')"
        vlmprof kernels tables "$folder"
    done
    operations=()
    for folder in ss2d-* operations peers; do
        [ ! -f "$folder/bench.json" ] || operations+=("$folder")
    done
    if [ "${#operations[@]}" -gt 0 ]; then
        printf '\n## Operations\n\n'
        vlmprof kernels tables "${operations[@]}"
    fi
    if compgen -G 'verify-*.txt' >/dev/null; then
        printf '\n## Against float64\n\n'
        verdicts
    fi
    outcomes=$(grep -aoE 'tests/[a-z_/]+\.py::.* (PASSED|FAILED|ERROR|SKIPPED)' "$scratch/$card/log.txt" || true)
    [ -z "$outcomes" ] || printf '\n## Tests that need a GPU\n\n```\n%s\n```\n' "$outcomes"
} >README.md.part

for run in */run.json; do
    [ -f "$run" ] || continue
    run=${run%/run.json}
    grep -q . "$run/rows.jsonl" || continue
    vlmprof report "$run" --format markdown --reference kuo2026 >/dev/null
    vlmprof plot "$run" --reference kuo2026 --format png --format pdf >/dev/null
    vlmprof compare "$run" --reference kuo2026 >"$run/against-paper.txt" 2>&1 || true
    {
        printf '\n## The sweep %s\n\n![Six panels over the points of the paper](%s/six_panel.png)\n\n' "$run" "$run"
        echo "[Tables]($run/report.md), [rows]($run/rows.jsonl), [comparison with the paper]($run/against-paper.txt)."
    } >>README.md.part
done
if [ -d figure ] && [ -d agreement ]; then
    vlmprof compare figure agreement >adaptive-against-fixed.txt 2>&1 || true
    printf '\n[The figure compared with 100 + 100 iterations](adaptive-against-fixed.txt).\n' >>README.md.part
fi

{
    printf '\n## Commands\n\nDurations include the start of the process.\n\n```\n%s\n```\n' "$(ending)"
    facts=$(card_facts)
    [ -z "$facts" ] || printf '\nOutput of nvidia-smi before them:\n\n```\n%s\n```\n' "$facts"
} >>README.md.part
mv README.md.part README.md

echo "$reports/$card: $(du -sh . | cut -f1), $(find . -type f | wc -l) files"
if grep -rnIoE '(^|[ "'"'"'(=])/(home|root|tmp|work|opt|usr|mnt|var|workspace)/[^ "'"'"']*' . | sort -u | head; then
    echo "these are folders of a machine: remove them before committing" >&2
fi
