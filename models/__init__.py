"""Arrays in, arrays out: detector, backbones, heads, decisions. Knows neither files of a store nor flows."""
