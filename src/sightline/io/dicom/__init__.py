"""DICOM radiographs and CT series: header, pixels, grey scale, geometry of slices."""
