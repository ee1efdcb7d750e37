"""The adapters on the frozen backbone: layers, roles, model, head statistics, methods, aggregation rules."""
