"""Lightning's own command line on the module and the datamodule of this package."""

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningCLI

import lightning_vfe as lv


class VariationalCLI(LightningCLI):
    """The module and the datamodule share one state."""

    def add_arguments_to_parser(self, parser):
        parser.link_arguments("model.state", "data.state", apply_on="instantiate")


def main(arguments=None):
    torch.set_default_dtype(torch.float64)
    set_parsing_settings(subclasses_enabled=[lv.Strata])
    return VariationalCLI(lv.VariationalFreeEnergy, lv.MCMCDataModule, args=arguments, save_config_callback=None)


if __name__ == "__main__":
    main()
