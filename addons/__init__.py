"""mitmproxy addons, one concern a file. Each carries values between the hooks and the plain code below; nothing more."""
