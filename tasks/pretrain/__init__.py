"""Stages of the pretrain flow."""
