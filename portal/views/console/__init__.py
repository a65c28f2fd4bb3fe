"""The console: one file per page. Tenants' pages stand behind `portal.access.console`, the platform's behind `operator`."""
