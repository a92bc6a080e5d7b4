"""Tensor operations of Mamba-2: a folder an operation, a plain reference beside each fast version.

Nothing here knows of models, tokens or documents. `__version__` is there because other packages
probe any installed module of this name for it.
"""

__version__ = "0.1.0"
