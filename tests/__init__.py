"""A package, so that another folder named `tests` on the path does not shadow this one."""
