"""Speed, measured: plans compared, operators and roofline."""
