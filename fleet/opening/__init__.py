"""Opens what devices send: verifies, decodes and reads batches; pure, and light to import.

It runs in the fleet's process or, when much comes in, in processes of its own
(`fleet.opening.worker`): a signature takes longer than storing what it stands for.
"""

from fleet.opening.pool import Openers
from fleet.opening.reading import MALFORMED, ReadBatch, Row, decode_body, read
from fleet.opening.verifying import Asked, opened

__all__ = ["MALFORMED", "Asked", "Openers", "ReadBatch", "Row", "decode_body", "opened", "read"]
