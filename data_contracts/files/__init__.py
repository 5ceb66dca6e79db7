"""Files on local disks and S3: locations, inputs, files of a store, requests to S3, lock."""
