"""The recipe that makes the embedded model: corpus, tokenizer, samples, training, export."""
