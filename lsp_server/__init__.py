"""The language server: documents, what the model sees of them, and LSP over stdio.

Nothing here imports torch until a model is loaded, so that `initialize` is answered at once.
"""
