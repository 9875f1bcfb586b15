"""Tools that verify, time, inspect and tune the operations. No operation imports from here."""
