"""mitmproxy, embedded: listeners, the driver of its layers, patches, the stream that needs a permit. No policy here."""

from .bare_addons import forgo_the_others

forgo_the_others()
