"""Recipes: named, complete settings of everything from features to decisions."""
