"""FPGA targets: an integer model, gateware that computes it bit for bit, and the proof."""
