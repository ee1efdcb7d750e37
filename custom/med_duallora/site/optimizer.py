"""The optimizer of a site's training, which goes on from round to round: AdamW and, in fp16, the loss scale."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.settings.config import TrainConfig
from med_duallora.support.adamw import AdamW

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SCALER = ("scale", "_growth_tracker")


def optimizer_of(model: DualLoRAModel, moments: Mapping[str, np.ndarray], settings: TrainConfig) -> torch.optim.AdamW:
    """Return the optimizer in its last state: first the group of what is sent, then of what is kept.

    The moments of the global factors are forgotten where the server returns others than those they belong to. Where
    nothing is sent, nothing is the local part beside a shared one, so that all has the whole rate and the plain decay.
    """
    parameters, kept = model.trained(), model.of_roles(model.plan.kept)
    sent = [parameter for name, parameter in parameters.items() if name not in kept]
    stays = [parameter for name, parameter in parameters.items() if name in kept]
    rate, decay = (settings.local_lr_factor, settings.local_weight_decay_factor) if sent else (1.0, 1.0)
    optimizer = AdamW(
        [
            {"params": sent, "factor": 1.0},
            {"params": stays, "factor": rate, "weight_decay": settings.weight_decay * decay},
        ],
        lr=settings.lr,
        betas=(settings.betas[0], settings.betas[1]),
        weight_decay=settings.weight_decay,
    )
    renewed = model.of_roles(model.plan.renewed)
    for name, parameter in parameters.items():
        if name not in renewed and f"{name}:step" in moments:
            optimizer.state[parameter] = {
                # AdamW counts its steps on the CPU whatever the parameter's device
                kind: torch.from_numpy(np.array(moments[f"{name}:{kind}"])).to(
                    "cpu" if kind == "step" else parameter.device
                )
                for kind in MOMENTS
            }
    return optimizer


def scaler_of(device: torch.device, moments: Mapping[str, np.ndarray], settings: TrainConfig) -> torch.amp.GradScaler:
    """Return the scaler of losses in its last state; it does nothing but in fp16."""
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    if moments and scaler.is_enabled():
        scaler.load_state_dict({**scaler.state_dict(), **{name: moments[f":{name}"].item() for name in SCALER}})
    return scaler


def moments_of(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter], scaler: torch.amp.GradScaler
) -> dict[str, np.ndarray]:
    """Return what the next round continues from, see ``RoundResult``."""
    found = {
        f"{name}:{kind}": optimizer.state[parameter][kind].detach().cpu().numpy().copy()
        for name, parameter in parameters.items()
        if optimizer.state[parameter]  # empty where fp16 skipped every step so far
        for kind in MOMENTS
    }
    if scaler.is_enabled():
        found |= {f":{name}": np.array(scaler.state_dict()[name]) for name in SCALER}
    return found
