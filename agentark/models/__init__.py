"""In: a model's folder, its name on the hub, or a GGUF file. Out: weights, tokenizer, digest, and chats as token ids."""
