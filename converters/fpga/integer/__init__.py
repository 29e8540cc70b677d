"""The integer model that gateware computes: its graph, its reference, and how ONNX becomes it."""
