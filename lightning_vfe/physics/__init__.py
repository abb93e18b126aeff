"""Floor 0: functions of tensors, in Hartree atomic units."""
