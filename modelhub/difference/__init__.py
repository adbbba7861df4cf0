"""Where two files that do not compute the same part: the first node, the likely cause, the smallest input, a repro."""
