"""What a run is made of and restored from: functions that print nothing."""
