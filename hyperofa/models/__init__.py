"""Any Hugging Face model: load it, look into it, change its vocabulary."""
