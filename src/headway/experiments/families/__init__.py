"""`headway heads compare`: every head family on the same trunk, with the same data and budget."""
