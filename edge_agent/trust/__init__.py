"""Whom the device believes, and who it is: keys, certificates, the director, TUF, proven time."""
