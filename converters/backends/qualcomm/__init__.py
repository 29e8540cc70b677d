"""Qualcomm's HTP, the tensor processor of the Hexagon, by QNN's compiler."""
