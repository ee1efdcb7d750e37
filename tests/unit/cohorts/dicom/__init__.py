"""Tests of the DICOM reader."""
