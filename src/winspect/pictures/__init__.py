"""Pictures before they reach the model: checks of files and of decoded pixels. NumPy and Pillow only."""
