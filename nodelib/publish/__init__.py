"""What a chapter publishes with, and how it is executed. Nothing here knows any one chapter."""
