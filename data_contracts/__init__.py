"""What the data is: vocabulary, schemas, official file formats, the store. Nothing here computes a prediction."""
