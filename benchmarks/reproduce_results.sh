#!/usr/bin/env bash
# The whole table on one GPU: rendered text, teachers L and X, the control, the published recipes and the new ones with
# three seeds, under both protocols, and the student worth shipping. What is done is skipped and what was interrupted goes
# on: call it again.
#
#   benchmarks/reproduce_results.sh DIR     DIR: the four zips of ICDAR2015
#
# Set in the environment for other sizes: EPOCHS (100), SEEDS (3), PICTURES rendered (20000), PRETRAIN epochs on them (5),
# IMGSZ (640), FLAGS for every training (such as '--device 0 --batch-size 32'), PHOTOS=1 to train the shipped
# student on more labelled photographs too (photos/, made by data/convert.py; data/ICDAR_photos.yaml names it), PYTHON.
# docs/recipes.md says what it takes.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${EPOCHS:=100}" "${SEEDS:=3}" "${PICTURES:=20000}" "${PRETRAIN:=5}" "${IMGSZ:=640}" "${FLAGS:=}" "${PHOTOS:=}"
: "${PYTHON:=python}"
[ -z "$PHOTOS" ] || [ -d photos/images/train ] || { echo 'PHOTOS: there is no photos/images/train' >&2; exit 1; }
source_dir=${1:?the folder with the four zips of ICDAR2015}
recipes=control,ln_4maskdiff,ln_4maskdiff_Hint,xn_maskdiff,xn_maskdiff_PFI,xn_maskdiff_PFI_Hint,recipes/xn_logit.yaml,recipes/xn_logit_mask.yaml
fine_tuning="--hyp data/hyps/finetune.yaml --nominal-batch 16 --optimizer AdamW --lr0 0.001 --cos-lr"

# What is finished is used again, so it must be of the same settings.
settings="EPOCHS=$EPOCHS PICTURES=$PICTURES PRETRAIN=$PRETRAIN IMGSZ=$IMGSZ FLAGS='$FLAGS'"
record=runs/reproduce_results.txt
made=$(compgen -G 'runs/train/pretrained_[lxn]'; compgen -G 'runs/train/teacher_[lx]*') || true
if [ -n "$made" ] && [ "$(cat $record 2>/dev/null)" != "$settings" ]; then
    echo "runs/ has runs of $(cat $record 2>/dev/null || echo 'other settings'), and these are $settings: move it away" >&2
    exit 1
fi

# run KIND NAME COMMAND...: a training, skipped if finished, resumed if begun.
run() {
    local kind=$1 name=$2 folder=runs/$1/$2
    shift 2
    if [ -f "$folder/metrics.json" ]; then
        echo "$folder is finished"
    elif [ -f "$folder/weights/last.pt" ]; then
        "$PYTHON" "$kind.py" --resume "$folder/weights/last.pt"
    else
        "$PYTHON" "$@" --imgsz "$IMGSZ" $FLAGS --exist-ok --name "$name"
    fi
}

# teacher SIZE NAME DATA: fine-tuned from rendered text.
teacher() {
    local best=runs/train/$2/weights/best.pt place=teacher/$1/weights/best.pt protocol own=
    for protocol in '' _published; do
        cmp --quiet "runs/train/teacher_$1$protocol/weights/best.pt" "$place" && own=1
    done
    if [ -e "$place" ] && [ -z "$own" ]; then
        echo "$place is not of this table: move it away, the recipes take their teachers from there" >&2
        exit 1
    fi
    run train "pretrained_$1" train.py --cfg "models/yolov5$1.yaml" --data data/synth.yaml --epochs "$PRETRAIN" --cos-lr
    run train "$2" train.py --weights "runs/train/pretrained_$1/weights/best.pt" --data "$3" --epochs "$EPOCHS" $fine_tuning
    mkdir -p "teacher/$1/weights"
    cp "$best" "$place"
}

"$PYTHON" data/prepare_icdar2015.py --source "$source_dir" --out ICDAR2015
more=()
[ -d /usr/share/fonts ] && more+=(--fonts /usr/share/fonts)
backgrounds=(ICDAR2015/train.txt)
[ -d /usr/share/backgrounds ] && backgrounds+=(/usr/share/backgrounds)
"$PYTHON" data/synthtext.py --style incidental "${more[@]}" --backgrounds "${backgrounds[@]}" --compare ICDAR2015 \
    --train "$PICTURES" --test 0 --size 640x360 --out synth

mkdir -p runs
echo "$settings" > $record

# The published protocol: everything from scratch on ICDAR2015 alone but for the teachers' rendered text.
for size in l x; do teacher $size "teacher_${size}_published" data/ICDAR_published.yaml; done
"$PYTHON" compare.py --name published --recipes $recipes --seeds "$SEEDS" --baselines s --data data/ICDAR_published.yaml \
    --student_weights '' --epochs "$EPOCHS" --imgsz "$IMGSZ" $FLAGS

# Ours: '###' ignored, chosen on val; the student starts from rendered text.
for size in l x; do teacher $size "teacher_$size" data/ICDAR.yaml; done
run train pretrained_n train.py --cfg models/yolov5n.yaml --data data/synth.yaml --epochs "$PRETRAIN" --cos-lr
"$PYTHON" compare.py --name ours --recipes $recipes --seeds "$SEEDS" --data data/ICDAR.yaml \
    --student_weights runs/train/pretrained_n/weights/best.pt --epochs "$EPOCHS" --imgsz "$IMGSZ" $fine_tuning $FLAGS

# The student worth shipping.
data=data/ICDAR.yaml shipped=shipped
[ -n "$PHOTOS" ] && data=data/ICDAR_photos.yaml shipped=shipped_photos
run distill "$shipped" distill.py --recipe recipes/xn_logit_mask.yaml --data "$data" --epochs "$EPOCHS" $fine_tuning \
    --student_weights runs/train/pretrained_n/weights/best.pt
"$PYTHON" val.py --weights "runs/distill/$shipped/weights/best.pt" --data data/ICDAR.yaml --task test --imgsz "$IMGSZ" \
    --exist-ok --name "$shipped"
