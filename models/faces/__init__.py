"""Face detection, tracking, subjects and crops."""
