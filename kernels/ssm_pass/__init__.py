"""A short run of tokens read from a state that stays as it is, and the state after n of them."""

from kernels.ssm_pass.parallel import ssm_commit, ssm_pass

__all__ = ["ssm_commit", "ssm_pass"]
