"""The server's side: screening, aggregation and the files that a federation leaves behind."""
