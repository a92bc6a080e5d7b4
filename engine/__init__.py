"""The completion engine: model, checkpoints, tokenizer, prompt, recurrent state and its cache.

It knows token ids and text, and nothing of editors: no URIs, no LSP positions.
"""
