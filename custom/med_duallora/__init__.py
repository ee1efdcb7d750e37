"""Med-DualLoRA for NVIDIA FLARE: federated dual low-rank adaptation of a cine-cardiac-MRI model.

Research software, not for diagnosis. The core (everything outside ``med_duallora.flare``) never
imports nvflare.
"""

__version__ = "0.2.0"
