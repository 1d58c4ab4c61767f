#!/usr/bin/env bash
# Give a small language model another vocabulary by every method: benchmarks/language_models.sh DATA OUTPUT LANGUAGES
#
# DATA holds make_lm.py, build.py, score_lm.py, parallel/ and heldout.tsv.gz (see benchmarks/README.md); LANGUAGES are those
# that the vocabulary is for, as in deu,spa,fin. KIND is causal or masked, SENTENCES how many verses a language are scored,
# WORDS the size of the vocabulary, LM_STEPS those of the source model, LAYERS and WIDTH its size, UNTIED=1 unties its head,
# STEPS are those of continual pretraining (0 for none), RATE and WARMUP its learning rate, BLOCKS × BLOCK tokens a step.
# What is there is not made again.
set -euo pipefail
data=$1 output=$2 languages=$3
kind=${KIND:-causal} sentences=${SENTENCES:-500} words=${WORDS:-50000} steps=${STEPS:-0}
here=$(dirname "$0")
mkdir -p "$output/models"

[ -f "$output/$kind/config.json" ] || python "$data/make_lm.py" --kind "$kind" --steps "${LM_STEPS:-3000}" \
  ${UNTIED:+--untied} ${LAYERS:+--layers "$LAYERS"} ${WIDTH:+--width "$WIDTH"} --output "$output/$kind"
[ -f "$output/vectors.vec" ] || python "$data/build.py" --languages "$languages" --vocab-size "$words" --output "$output"
[ -d "$output/bundle" ] || hyperofa prepare --source_model "$output/$kind" --target_tokenizer "$output/target_tokenizer" \
  --vectors "$output/vectors.vec" --source_languages eng --output "$output/bundle"

# Export and score one method: line NAME FLAGS...
line() {
  local name=$1
  shift
  [ -d "$output/models/$name" ] || hyperofa export --bundle "$output/bundle" --output "$output/models/$name" "$@"
  [ -f "$output/$name.txt" ] || python "$data/score_lm.py" "$output/models/$name" --languages "eng,$languages" \
    --sentences "$sentences" > "$output/$name.txt"
}

for method in random mean subtokens ofa ofa_tuned; do
  line "$method" --method "$method"
done
run=$output/runs/hyperofa/run
[ -f "$run/checkpoints/best.ckpt" ] || hyperofa fit --config "$here/../configs/fit.yaml" --data.bundle "$output/bundle" \
  --data.text "$data"/parallel/eng*.tsv.gz --trainer.logger.init_args.save_dir "$output/runs" \
  --trainer.logger.init_args.name hyperofa --trainer.logger.init_args.version run
net="$run/checkpoints/best.ckpt"
line hyperofa --method hyperofa --checkpoint "$net"

# What an option does to a language model, one at a time.
pooled=(--method ofa_tuned --mixing.rescale false)
native=(--copied role symbol native)
line ofa_native --method ofa "${native[@]}"
line ofa_tuned_not_rescaled "${pooled[@]}"
line ofa_tuned_not_rescaled_k10 "${pooled[@]}" --mixing.neighbours 10
line ofa_tuned_not_rescaled_k10_native "${pooled[@]}" --mixing.neighbours 10 "${native[@]}"
line ofa_tuned_not_rescaled_k30_native "${pooled[@]}" --mixing.neighbours 30 "${native[@]}"
line ofa_tuned_not_rescaled_k10_T03_native "${pooled[@]}" --mixing.neighbours 10 --mixing.temperature 0.3 "${native[@]}"
line hyperofa_native_predicted --method hyperofa --checkpoint "$net" --copied role symbol
line hyperofa_overlap_copied --method hyperofa --checkpoint "$net" --copied role symbol exact case
line hyperofa_quarter_of_ofa --method hyperofa --checkpoint "$net" --ofa_share 0.25

if [ "$steps" -gt 0 ] && [ ! -f "$output/pretrained/curves.json" ]; then # the same blocks in the same order for all
  texts=()
  for language in $(tr , ' ' <<< "$languages"); do texts+=(--text "$language=$data/parallel/$language.tsv.gz"); done
  hyperofa pretrain --model "$output"/models/{mean,ofa,hyperofa} "${texts[@]}" --output "$output/pretrained" \
    --validation_lines 60 --training.steps "$steps" --training.evaluate_every 25 \
    --training.batch_size "${BLOCKS:-8}" --training.block_size "${BLOCK:-128}" --training.learning_rate "${RATE:-1e-3}" \
    --training.warmup_steps "${WARMUP:-20}"
fi
cat "$output"/*.txt
