"""What is shown of an evaluation: page, figures, spreadsheet, and the files that hold them."""
