"""What trainings on stored data share."""
