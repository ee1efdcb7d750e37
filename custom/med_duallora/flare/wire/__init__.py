"""What site and server say to each other: job settings, payloads, tracking and receipts."""
