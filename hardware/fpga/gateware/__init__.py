"""The engine's Verilog, as package data."""
