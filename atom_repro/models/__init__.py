"""Model families: networks, tokenizer, generation, text embedder."""
