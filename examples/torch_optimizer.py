"""Any optimizer and scheduler of PyTorch: AdamW with a rate that falls along a cosine."""

import functools

import lightning as L
import torch

import lightning_vfe as lv


def build():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    system, strata = lv.System(2), lv.Strata.of(rs=1.5, protons="fixed")
    psi = lv.GeminalWavefunction(system, lv.reference_point(strata), num_layers=1, single_width=8, pair_width=4)
    sampler = lv.NestedSampler(system, num_electron_steps=10)
    return lv.VariationalState(system, strata, psi, None, sampler, 8, 32, structure="bcc", equilibration_sweeps=10)


def main(max_steps=60):
    state = build()
    optimizer = lv.TorchOptimizer(
        functools.partial(torch.optim.AdamW, lr=1e-2),
        functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=max_steps),
    )
    trainer = L.Trainer(max_steps=max_steps, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(lv.VariationalFreeEnergy(state, optimizer), lv.MCMCDataModule(state, equilibration_steps=10))
    return state


if __name__ == "__main__":
    print(main().energies().terms["energy_per_atom"].mean())
