"""What weights can be quantized to, by name; here, because telling this takes no torch."""

QUANTIZATIONS = ("int8", "int4")
