"""In: a model's folder, its name on the hub, or a GGUF file. Out: weights, tokenizer, digest, chats as token ids."""
