"""mitmproxy addons, one concern a file. They carry values between the hooks and the plain code below."""
