"""Files, the machine, the terminal, and what libraries may do."""
