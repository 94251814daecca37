"""Copies of DICOM files without what identifies a patient, references whole."""
