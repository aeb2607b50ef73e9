"""Speed, measured: plans, engines and precisions side by side; operators and the machine's limits."""
