"""Code shared by the operations: backends, argument checks, launching, caches and device functions.

Nothing here depends on an operation or a tool.
"""
