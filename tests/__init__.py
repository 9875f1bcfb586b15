"""A package, so that a folder called `tests` elsewhere on the path is never found before this one."""
