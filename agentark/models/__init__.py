"""In: a model's folder, its name on the hub, or a GGUF file. Out: loaded weights and tokenizer, its digest, chats as token ids."""
