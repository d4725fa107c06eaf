"""The command `repair`: an output folder of which files were lost."""
