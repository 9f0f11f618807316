"""What is tried next, and when it stops, on the ledger alone. No Ray."""
