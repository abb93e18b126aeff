"""Run folders: checkpoints, loggers, signals and the processes of a launch."""
