"""Draw predictions into copies of videos."""
