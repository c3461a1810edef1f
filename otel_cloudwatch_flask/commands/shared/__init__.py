"""What several commands need: loading the app, reading documents, calling AWS, printing tables."""
