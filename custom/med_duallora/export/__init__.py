"""A trained model for other tools: CineMA's own file format, Hugging Face PEFT, MONAI, DICOM, and a card about it.

What is made from a site's own state holds what the site never sends, so it is written only where the site allows it
(see ``permission``). Nothing here needs the tool that an export is for, except the DICOM report: highdicom writes it.
"""
