"""FPGAs as devices: the engine's gateware, and what drives it from a host."""
