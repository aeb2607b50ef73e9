"""What winspect asks of the machine: files, and what libraries may do."""
