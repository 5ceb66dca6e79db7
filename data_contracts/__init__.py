"""What the data is: vocabulary, schemas, official file formats, the store. No module here computes a prediction."""
