"""The commands of the command line, by name."""

COMMANDS = {
    "demo": "hyperofa.demo.demo:demo",
    "doctor": "hyperofa.inspection.doctor:doctor",
    "prepare": "hyperofa.bundle.prepare:prepare",
    "export": "hyperofa.export.export:export",
    "expand": "hyperofa.models.expand:expand",
    "trim": "hyperofa.models.trim:trim",
    "verify": "hyperofa.models.manifest:verify",
    "evaluate": "hyperofa.evaluation.evaluate:evaluate",
    "pretrain": "hyperofa.pretraining.pretrain:pretrain",
    "distill": "hyperofa.pretraining.distill:distill",
    "hewitt": "hyperofa.experiments.hewitt:hewitt",
    "ablate": "hyperofa.experiments.ablate:ablate",
    "config": "hyperofa.presets:config",
    "completion": "hyperofa.completion:completion",
    "vectors train": "hyperofa.vectors.train:train_vectors",
    "vectors align": "hyperofa.vectors.aligning:align_vectors",
    "vectors convert": "hyperofa.vectors.formats:convert_vectors",
    "vectors info": "hyperofa.inspection.vector_info:inspect_vectors",
    "vectors merge": "hyperofa.vectors.merging:merge_vectors",
}
"""Own commands, and where their functions are; those of one kind share their first word."""

TRAINING_COMMANDS = {
    "fit": "Train a hypernetwork on a bundle; takes all that Lightning's Trainer takes.",
    "validate": "Measure a checkpoint on the held-out tokens and sentences.",
    "test": "Measure a checkpoint on the test tokens.",
    "predict": "Write the coordinates that a checkpoint predicts for the target tokens.",
}

SUBJECTS = {
    "to begin with": ("demo", "config", "doctor"),
    "word vectors": ("vectors train", "vectors align", "vectors convert", "vectors merge", "vectors info"),
    "new rows, step by step": ("prepare", "fit", "export", "evaluate"),
    "their training": ("pretrain", "distill"),
    "vocabularies": ("expand", "trim", "verify"),
    "comparisons": ("ablate", "hewitt"),
    "hypernetworks": ("validate", "test", "predict"),
    "shells": ("completion",),
}
"""Every command, by heading, in the order in which help lists them."""
