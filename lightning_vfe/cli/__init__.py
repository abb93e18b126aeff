"""The command line: parse, call a workflow, print."""

from lightning_vfe.cli.dispatch import main

__all__ = ["main"]
