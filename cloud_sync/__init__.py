"""All that crosses the wire, for both ends: releases, resolution, messages, trust, transfer."""
