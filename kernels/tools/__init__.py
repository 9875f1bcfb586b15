"""What verifies, times, inspects and tunes the operations. No operation imports from here."""
