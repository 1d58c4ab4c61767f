#!/usr/bin/env bash
# One line for each option of export: benchmarks/options.sh DATA SOURCE_MODEL OUTPUT
#
# Uses the bundle and the hypernetworks that realworld.sh left in OUTPUT; 200 sentences a language. Prints top-1 and top-10
# of SR-B and SR-T.
set -euo pipefail
data=$1 source=$2 output=$3
mkdir -p "$output/options"

# line NAME METHOD FLAGS...
line() {
  local name=$1 method=$2
  shift 2
  if [ ! -f "$output/options/$name.json" ]; then
    hyperofa export --bundle "$output/bundle" --method "$method" --output "$output/options/model" --overwrite true "$@"
    hyperofa evaluate --model "$output/options/model" --source_model "$source" --data "$data" --sentences 200 \
      --output "$output/options/$name.json"
  fi >/dev/null 2>&1
  python - "$name" "$output/options/$name.json" <<'PYTHON'
import json, sys
means = json.load(open(sys.argv[2]))["means"]
cells = (f"{value:.1f}" for task in sorted(means) for value in means[task])
print(f"| {sys.argv[1].replace('_', ' ')} | " + " | ".join(cells) + " |")
PYTHON
}

echo '| option | SR-B top-1 | SR-B top-10 | SR-T top-1 | SR-T top-10 |'
echo '|---|---|---|---|---|'
line ofa_tuned ofa_tuned
line …_k_=_10 ofa_tuned --mixing.neighbours 10
line …_k_=_1 ofa_tuned --mixing.neighbours 1
line …_T_=_0.05 ofa_tuned --mixing.temperature 0.05
line …_not_rescaled ofa_tuned --mixing.rescale false
line …_CSLS ofa_tuned --mixing.csls true --mixing.temperature 0.2
line …_three_strongest_directions_removed ofa_tuned --mixing.directions remove
line …_whitened ofa_tuned --mixing.directions whiten
line …_overlap_predicted ofa_tuned --copied role symbol

net() { echo "$output/runs/hyperofa-$1/run/checkpoints/best.ckpt"; }
line hyperofa hyperofa --checkpoint "$(net 0)"
line …_overlap_copied hyperofa --checkpoint "$(net 0)" --copied role symbol exact case
line …_a_quarter_of_OFA hyperofa --checkpoint "$(net 0)" --ofa_share 0.25
line …_learned_share_of_OFA hyperofa --checkpoint "$(net 0)" --ofa_share null
if [ -f "$(net 1)" ]; then
  line …_mean_of_two_seeds hyperofa --checkpoint "$(net 0)" "$(net 1)"
fi
