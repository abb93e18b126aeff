"""Neural networks: wavefunction, flow, base and potential. No sampling and no Lightning here."""
