"""How the encoder's maths runs: on which device, in which precision, by which library."""
