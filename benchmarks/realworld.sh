#!/usr/bin/env bash
# Score every method on real languages: benchmarks/realworld.sh DATA SOURCE_MODEL OUTPUT
#
# DATA holds vectors.vec, target_tokenizer/, english.txt, heldout.tsv.gz, tatoeba/ and optionally parallel.tsv
# (see benchmarks/README.md). SEEDS sets how many hypernetworks are trained (default 3). Steps whose output is there are
# not run again.
set -euo pipefail
data=$1 source=$2 output=$3
seeds=${SEEDS:-3}
here=$(dirname "$0")
mkdir -p "$output"

if [ ! -d "$output/bundle" ]; then
  hyperofa prepare --source_model "$source" --target_tokenizer "$data/target_tokenizer" \
    --vectors "$data/vectors.vec" --source_languages eng --output "$output/bundle"
fi

# Train, export and score one hypernetwork: fit NAME SEED FLAGS...
fit() {
  local name=$1 seed=$2
  shift 2
  if [ ! -f "$output/$name-$seed.json" ]; then
    /usr/bin/env time -f '%U %S %e' -o "$output/$name-$seed.time" \
      hyperofa fit --config "$here/../configs/fit.yaml" --seed_everything "$seed" --data.seed "$seed" \
      --data.bundle "$output/bundle" --data.text "[$data/english.txt]" \
      --trainer.logger.init_args.save_dir "$output/runs" --trainer.logger.init_args.name "$name-$seed" \
      --trainer.logger.init_args.version run "$@"
    hyperofa export --bundle "$output/bundle" --method hyperofa --output "$output/models/$name-$seed" --overwrite true \
      --checkpoint "$output/runs/$name-$seed/run/checkpoints/best.ckpt"
    score "$name-$seed"
  fi
}

# Score an exported model: score NAME
score() {
  hyperofa evaluate --model "$output/models/$1" --source_model "$source" --data "$data" --output "$output/$1.json"
}

for method in random mean subtokens ofa ofa_tuned; do
  if [ ! -f "$output/$method-0.json" ]; then
    hyperofa export --bundle "$output/bundle" --method "$method" --output "$output/models/$method-0" --overwrite true
    score "$method-0"
  fi
done
for seed in $(seq 0 $((seeds - 1))); do
  fit hyperofa "$seed"
done
if [ -f "$data/parallel.tsv" ]; then
  fit hyperofa_parallel 0 --data.parallel "[$data/parallel.tsv]" --data.views.translated 32 --data.views.parallel 64
fi
python "$here/table.py" "$output"
