"""WinCLIP: prompts, windows, zero-shot and few-shot scores."""
