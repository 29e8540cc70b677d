"""LiteRT: float `.tflite` models, and what LiteRT executes made from them or from ONNX.

`model` describes a `.tflite` file, `rules` are what a recipe may say of one, `family` makes the
files, with the toolchains onnx2tf and ai-edge-quantizer.
"""
