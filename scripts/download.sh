#!/usr/bin/env bash
# Fetches the benchmarks from their official homes:
#   bash scripts/download.sh [longbench] [infinitebench] [longeval] [ruler] [--data_dir D]
# Without a name, longbench and infinitebench. A file that is there and whole is not fetched again;
# one that was cut off is resumed. Every file's SHA-256 is checked against the one its home states
# (large files of the Hugging Face hub), and kept in SHA256SUMS, against which later runs check.
# Exit codes: 0 done, 1 a file is damaged or gone, 2 wrong arguments, 3 no network.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data_dir="$here/benchmark/data"
hub=${HF_ENDPOINT:-https://huggingface.co}
raw=${RAW_ENDPOINT:-https://raw.githubusercontent.com}
python=${PYTHON:-python}

usage() { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
fail() { echo "error: $2" >&2; exit "$1"; }

wanted=()
while (($#)); do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --data_dir) [[ $# -ge 2 ]] || fail 2 "--data_dir needs a folder"; data_dir=$2; shift ;;
        longbench | infinitebench | longeval | ruler) wanted+=("$1") ;;
        *) fail 2 "'$1' is not known; accepted: longbench, infinitebench, longeval, ruler, --data_dir D" ;;
    esac
    shift
done
((${#wanted[@]})) || wanted=(longbench infinitebench)

command -v curl >/dev/null || fail 2 "curl is needed and not installed"
command -v "$python" >/dev/null || python=python3

# reach URL: ends the script unless its host answers.
reach() {
    local host
    host=$(sed 's|^\([a-z]*://[^/]*\).*|\1|' <<<"$1")
    curl --silent --head --location --max-time 20 --output /dev/null "$host" ||
        fail 3 "cannot reach $host: a network is needed. Copy the files into $data_dir by hand
       from a machine that has one; the sources are listed in ${BASH_SOURCE[0]#"$here/"}"
}

digest() { "$python" -c 'import hashlib,sys; print(hashlib.file_digest(open(sys.argv[1],"rb"),"sha256").hexdigest())' "$1" 2>/dev/null ||
    sha256sum "$1" | cut -d' ' -f1; }

# stated URL: the SHA-256 that the hub states for a large file, or nothing.
stated() {
    curl --silent --head --max-time 30 "$1" | tr -d '\r"' |
        sed -n 's/^[Xx]-[Ll]inked-[Ee][Tt]ag: \([0-9a-f]\{64\}\)$/\1/p' | head -1
}

# fetch FOLDER NAME URL [URL ...]: the first of the URLs that has the file.
fetch() {
    local folder=$1 name=$2 url code sums="$1/SHA256SUMS"
    shift 2
    mkdir -p "$folder"
    if [[ -f $folder/$name ]] && grep -qs "  $name\$" "$sums"; then
        if [[ $(digest "$folder/$name") == "$(sed -n "s/  $name\$//p" "$sums" | tail -1)" ]]; then
            echo "  $name is there"
            return
        fi
        echo "  $name differs from SHA256SUMS and is fetched again"
        rm "$folder/$name"
    fi
    for url in "$@"; do
        echo "  $name <- $url"
        code=$(curl --fail --location --retry 3 --continue-at - --progress-bar \
            --output "$folder/$name.part" --write-out '%{http_code}' "$url") && code=200
        # 416: nothing is left to resume, the part is whole
        if [[ $code == 200 || ($code == 416 && -s $folder/$name.part) ]]; then
            check "$folder" "$name" "$url"
            return
        fi
    done
    fail 1 "none of the addresses above has $name; what was fetched of it is kept for a next run"
}

# check FOLDER NAME URL: moves NAME.part into place if it is what its home states.
check() {
    local part="$1/$2.part" got home
    got=$(digest "$part")
    home=$(stated "$3")
    if [[ -n $home && $home != "$got" ]]; then
        rm "$part"
        fail 1 "$2 is damaged: SHA-256 $got, its home states $home. Run this again"
    fi
    mv "$part" "$1/$2"
    touch "$1/SHA256SUMS"
    sed -i.before "/  $2\$/d" "$1/SHA256SUMS" && rm "$1/SHA256SUMS.before"
    echo "$got  $2" >>"$1/SHA256SUMS"
}

longbench() {
    local to="$data_dir/longbench" file
    for file in dataset2prompt.json dataset2maxlen.json; do
        fetch "$to" "$file" "$raw/THUDM/LongBench/main/LongBench/config/$file" \
            "$raw/THUDM/LongBench/main/config/$file"
    done
    fetch "$to" data.zip "$hub/datasets/THUDM/LongBench/resolve/main/data.zip"
    "$python" - "$to" <<'PYTHON'
import pathlib, sys, zipfile
to = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(to / "data.zip") as archive:
    for name in archive.namelist():
        if name.endswith(".jsonl") and not pathlib.PurePosixPath(name).name.startswith("."):
            (to / pathlib.PurePosixPath(name).name).write_bytes(archive.read(name))
PYTHON
}

infinitebench() {
    local to="$data_dir/infinitebench" task
    fetch "$to" prompt.py "$raw/OpenBMB/InfiniteBench/main/src/prompt.py"
    fetch "$to" infllm_prompts.json "$raw/thunlp/InfLLM/main/benchmark/config/dataset2prompt.json"
    for task in passkey number_string kv_retrieval math_find math_calc code_run code_debug \
        longdialogue_qa_eng longbook_choice_eng longbook_qa_eng longbook_qa_chn longbook_sum_eng; do
        fetch "$to" "$task.jsonl" \
            "$hub/datasets/xinrongzhang2022/InfiniteBench/resolve/main/$task.jsonl"
    done
}

longeval() {
    local n
    for n in 200 300 400 500 600 680; do
        fetch "$data_dir/longeval" "${n}_lines.jsonl" \
            "$raw/DachengLi1/LongChat/longeval/longeval/evaluation/lines/testcases/${n}_lines.jsonl" \
            "$raw/DachengLi1/LongChat/main/longeval/evaluation/lines/testcases/${n}_lines.jsonl"
    done
}

ruler() {
    local to="$data_dir/ruler" file
    for file in constants.py niah.py; do
        fetch "$to" "$file" "$raw/NVIDIA/RULER/main/scripts/data/synthetic/$file"
    done
    fetch "$to" squad.json https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json
    fetch "$to" hotpotqa.json http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json
}

reach "$raw"
for name in "${wanted[@]}"; do
    [[ $name == longbench || $name == infinitebench ]] && reach "$hub"
    echo "$name"
    "$name"
done
echo "done: $data_dir"
