"""The contract that a broker must keep for edgeml, and the brokers that were put to it."""
