"""What a pass is told: sizes and addresses, an int64 each."""

from enum import IntEnum, auto


class Job(IntEnum):
    """Where each of them lies in a job. Strides count items; a packed group is `GROUP` rows."""

    # Of the model, the same in every pass.
    N_LAYERS = 0
    D_MODEL = auto()
    D_INNER = auto()
    NHEADS = auto()
    HEADDIM = auto()
    NGROUPS = auto()
    D_STATE = auto()
    D_CONV = auto()
    CONV_DIM = auto()
    RESIDUAL_STRIDE = auto()
    PROJECTED_STRIDE = auto()
    Y_STRIDE = auto()
    LOGITS_STRIDE = auto()
    N_THREADS = auto()
    SHARES = auto()  # by thread: see `sharing`
    ITEM_BYTES = auto()  # of a packed weight
    IN_PROJ = auto()  # of all layers, one behind the other
    IN_SCALES = auto()
    OUT_PROJ = auto()
    OUT_SCALES = auto()
    HEAD = auto()
    HEAD_SCALES = auto()
    SMALL = auto()  # all else, layer by layer; see `packing`
    SMALL_STRIDE = auto()
    EMBEDDINGS = auto()
    LIMITS = auto()  # norm_eps, and dt's lower and upper bound
    # What there is to work in,
    RESIDUAL = auto()
    PROJECTED = auto()
    Y = auto()
    OWN = auto()  # of each thread: normed inputs and their digits, or a head's scratch
    OWN_STRIDE = auto()
    # what a pass reads,
    N_TOKENS = auto()
    TOKENS = auto()
    CONV_STATE = auto()
    SSM_STATE = auto()
    # and what it gives.
    LOGITS = auto()  # 0 where none are wanted
    HIDDEN = auto()
    XBC = auto()
    X = auto()
    B = auto()
    DT = auto()
    CONV_AFTER = auto()
    SSM_AFTER = auto()
    # How many phases there were before it.
    PHASE = auto()
