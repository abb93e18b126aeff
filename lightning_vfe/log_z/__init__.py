"""ln Z of a potential: replica exchange over windows from the ideal gas, reweighted by MBAR."""
