"""Files that outlive crashes and tell when they are damaged; the one cache; being asked to stop.

`memo` keeps what was computed, `write_json` and `read_json` have checksums, `locked` lets one process write at a time.
"""
