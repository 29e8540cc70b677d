"""`edgeml demo`: the whole loop on one machine, with real processes and no part faked."""
