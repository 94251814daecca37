"""What a network or a reader says of DICOM images, as DICOM objects."""
