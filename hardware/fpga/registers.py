"""The engine's bus as a host sees it: regions, registers and bits. Addresses count 32-bit words."""

ID_VALUE = int.from_bytes(b"edge", "big")
VERSION_VALUE = 1
ADDRESS_BITS = 20

REGISTERS = 0 << 17
MEMORIES = {
    "program": 1 << 17,
    "weights": 2 << 17,
    "parameters": 3 << 17,
    "tables": 4 << 17,
}
ACTIVATIONS = 5 << 17  # of an engine; the input of a dataflow
OUTPUTS = 6 << 17  # of a dataflow

ID = 0
VERSION = 1
BUILD = 2  # four words, the first digits first
SIZE = 6  # six words, as the fields of `Size`
CONTROL = 12
STATUS = 13
CYCLES = 14
INDEX = 15
LAYER = 16
SCRATCH = 17

START = 1  # of CONTROL
STOP = 2
BUSY = 1  # of STATUS
DONE = 2
ERROR_SHIFT = 8

ERRORS = {
    1: "it was started while it was running",
    2: "its memory was written while it was running",
    3: "its program is damaged",
}
