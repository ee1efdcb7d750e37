"""The two low-rank adapters on the frozen backbone: layers, model, head statistics, methods, roles of tensors."""
