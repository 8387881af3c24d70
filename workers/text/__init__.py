"""What the agents know about text: plain functions on strings; nothing here knows streammesh.

`cleaning` and `extraction` make clean text of documents, `sentences` and `terms` take it apart. Clean text has one form
everywhere: paragraphs without line breaks, separated by one blank line. A heading or a list item is a paragraph.
"""
