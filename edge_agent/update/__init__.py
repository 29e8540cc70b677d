"""Updates: a pure state machine, its journal, and the thin shell that drives it."""
