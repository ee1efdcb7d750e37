"""What may leave a site, what has left it, and where an adapter comes from: contract, ledger and lineage."""
