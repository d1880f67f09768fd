"""What holds for the source itself: its rooms, its sizes and its words. Nothing of the package runs here."""
