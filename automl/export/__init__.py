"""From weights to a published version: ONNX file, parity, metrics, report and registry."""
