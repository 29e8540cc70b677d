"""Arm's Ethos-U: int8 `.tflite` files that Vela compiles into command streams."""
