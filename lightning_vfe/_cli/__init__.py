"""What the command line is made of; `lightning_vfe.cli` puts it together."""
