"""What the operations share: backends, argument checks, launching, caches and device functions.

Nothing here knows an operation or a tool.
"""
