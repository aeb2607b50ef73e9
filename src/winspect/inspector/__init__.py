"""What a user holds: ``WinCLIP`` and what it shares with bundles; good samples encoded once; thresholds calibrated."""
