"""The prepared artefact: what a hypernetwork and the baselines need, in one folder."""
