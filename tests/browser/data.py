"""What a browser test needs in the database beyond the demo, run in a process of its own: `python -m tests.browser.data VERB …`."""
