"""ONNX files: what the written ones have in common, and running them."""

OPSET = 18  # the first whose Resize has `antialias` and `axes`
IR_VERSION = 10

LABEL, PROBABILITIES = "label", "probabilities"  # outputs of a file that classifies
VALUE = "value"  # the output of a file that predicts values
