"""What can be asked of a text: one module per control task."""
