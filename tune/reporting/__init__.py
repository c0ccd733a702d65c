"""What a report says: statistics, tables, sentences, pages."""
