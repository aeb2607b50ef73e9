"""How the bundled model was made. Nothing in here is installed with winspect; see training/README.md."""
