"""New vocabularies for pretrained language models: a hypernetwork predicts the token embeddings."""
