"""Toolchains: locked environments of their own, run as subprocesses.

`store` installs them, `ask` sends one a request, `doctor` examines them, `emulation` runs
Python on an emulated processor. What each holds is data in `definitions`.
"""
