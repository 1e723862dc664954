"""mitmproxy, embedded: listeners, the driver of its layers, patches, the stream that needs a permit. No policy here."""
