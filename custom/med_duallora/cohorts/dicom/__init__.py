"""Reader of DICOM studies: from a folder of files to raw subjects; nothing of a patient's identity is passed on."""
