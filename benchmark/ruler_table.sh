#!/usr/bin/env bash
# RULER's tasks that need no other data, on small models: full attention, the window alone, this memory
# and the published rule, read densely (one read for all) and by each in its own way.
#
#   bash benchmark/ruler_table.sh OUT smollm2=FOLDER qwen2.5-0.5b=FOLDER
#
# A model is a configuration's name and a folder. CONTEXTS=10 a task; held-out seeds. Every line has a
# folder of rows in OUT; what was cut off goes on where it was, and more contexts may be asked for.
set -euo pipefail
out=${1:?"a folder for the rows, then NAME=FOLDER of every model"}
shift
here=$(cd "$(dirname "$0")/.." && pwd)
needles=niah_single_1,niah_single_2,niah_single_3,niah_multikey_1,niah_multikey_2,niah_multikey_3
inside=$needles,niah_multivalue,niah_multiquery,vt,cwe,fwe
beyond=niah_single_2,niah_multikey_1,vt
asked="--questions 1 --seed 1000 -n ${CONTEXTS:-10} --against repr_topk=4 model.dtype=float32"

mkdir -p "$out"
for model in "$@"; do
    for length in ${INSIDE-4k 8k}; do
        for read in dense own; do
            echo "${model%%=*}-$length-$read -c ${model%%=*} -m '${model#*=}' --length $length" \
                "--read $read --tasks $inside $asked"
        done
    done
    for length in ${BEYOND-16k 32k}; do
        echo "${model%%=*}-$length-own -c ${model%%=*} -m '${model#*=}' --length $length" \
            "--read own --tasks $beyond $asked"
    done
done > "$out/grid.txt"
exec python "$here/benchmark/fidelity.py" "$out/grid.txt" --out "$out"
