#!/usr/bin/env bash
# One process a GPU, each with its share of the samples; then the scores.
#   bash scripts/multiprocessing-benchmark.sh --config_path F [--world_size W] [--datasets a,b,c]
#       [--output_dir_path D] [-- further arguments of benchmark/pred.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
world_size=1
config_path=
datasets=passkey,number_string,code_debug,math_find,longbook_choice_eng
output_dir_path=$ROOT/benchmark/benchmark-result

usage() { sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
while (($#)); do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        -w | --world_size | -f | --config_path | -d | --datasets | -o | --output_dir_path)
            [[ $# -ge 2 ]] || { echo "error: $1 needs a value" >&2; exit 2; }
            case "$1" in
                -w | --world_size) world_size=$2 ;;
                -f | --config_path) config_path=$2 ;;
                -d | --datasets) datasets=$2 ;;
                *) output_dir_path=$2 ;;
            esac
            shift 2
            ;;
        *) echo "error: '$1' is not known" >&2; usage >&2; exit 2 ;;
    esac
done
[[ -n $config_path ]] || { echo "error: --config_path is needed" >&2; usage >&2; exit 2; }
[[ $world_size =~ ^[1-9][0-9]*$ ]] || { echo "error: --world_size $world_size is not a number from 1" >&2; exit 2; }

python=$(find_installed)
processes=()
trap 'kill "${processes[@]}" 2>/dev/null' INT TERM
for ((rank = 0; rank < world_size; ++rank)); do
    CUDA_VISIBLE_DEVICES=$rank "$python" "$ROOT/benchmark/pred.py" --config_path "$config_path" \
        --output_dir_path "$output_dir_path" --datasets "$datasets" \
        --world_size "$world_size" --rank "$rank" "$@" &
    processes+=($!)
    echo "worker $rank started"
done
status=0
for process in "${processes[@]}"; do
    wait "$process" || status=$?
done
((status == 0)) || { echo "error: a worker ended with exit code $status; start again to go on" >&2; exit "$status"; }

"$python" "$ROOT/benchmark/merge.py" --output_dir_path "$output_dir_path" --datasets "$datasets"
"$python" "$ROOT/benchmark/eval.py" --dir_path "$output_dir_path"
