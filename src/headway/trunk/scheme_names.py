"""Names of the quantisation schemes, importable without torch. `headway.trunk.quantization.SCHEMES` has the implementations."""

SCHEME_NAMES = ("int8", "int4", "int8-dynamic", "fp8-dynamic")
QUANTIZE_CHOICES = ("none", "auto", *SCHEME_NAMES)  # of the flag --quantize
