"""The node: DICOM in, answers back in the PACS; never for the wrong body part, never lost, never twice."""
