"""Parts of the flows that score: their result, the summary of videos and persons, and images."""
