"""The organisers' layout and files: editions, annotations, test lists, submissions, verification."""
