"""What a run leaves behind: rows, heat maps, the HTML report."""
