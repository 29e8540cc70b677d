"""Pipelines that the tests start from."""

from hardware.runtimes import TensorSpec

GOOD = b"""
version = 1
task = "classification"
labels = ["a", "b", "c"]
[region]
x = 0.25
y = 0.5
width = 0.5
height = 0.5
[[pre]]
op = "colour"
to = "gray"
[[pre]]
op = "resize"
width = 4
height = 4
[[pre]]
op = "scale"
factor = 0.00392156862745098
mean = [0.5]
std = [0.25]
[[pre]]
op = "layout"
to = "NCHW"
[[post]]
op = "softmax"
[[post]]
op = "top_k"
k = 2
[[post]]
op = "threshold"
value = 0.6
[site]
allow = ["region", "threshold"]
"""
INPUT = (TensorSpec(name="image", shape=("N", 1, 4, 4), dtype="float32"),)
