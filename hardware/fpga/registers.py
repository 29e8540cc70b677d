"""The engine's bus as a host sees it: regions, registers and bits. Addresses count 32-bit words."""

ID_VALUE = int.from_bytes(b"edge", "big")
VERSION_VALUE = 2  # of engines
DATAFLOW_VERSION = 1
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
INPUT = 18  # words of 32 bits of one of two banks of the input; 0 where there is one

START = 1  # of CONTROL
STOP = 2
START_BANK = 4
ENTRY_SHIFT = 16  # the program's first word
BUSY = 1  # of STATUS
DONE = 2
BANK = 4  # that was started last
ERROR_SHIFT = 8

ERRORS = {
    1: "it was started while it was running",
    2: "its memory was written while it was running",
    3: "its program is damaged",
}
