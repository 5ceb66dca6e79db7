"""One file layer for local disks and S3."""
