"""What the service keeps: good samples and calibrations."""
