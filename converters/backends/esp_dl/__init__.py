"""Espressif's microcontrollers, by ESP-PPQ, for ESP-DL on the chip."""
