"""Devices, numeric precision, batch sizes and the OpenVINO wrapper."""
