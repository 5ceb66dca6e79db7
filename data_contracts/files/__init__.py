"""Files on local disks and S3: locations, credentials, inputs, files of a store, requests to S3, lock."""
