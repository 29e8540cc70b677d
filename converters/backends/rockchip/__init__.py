"""Rockchip's NPUs, by rknn-toolkit2."""
